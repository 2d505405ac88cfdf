from .base import loading_lines as loading_lines
from .export import export_run as export_run
from .hub import push as push
