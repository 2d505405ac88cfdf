from .compare import compare_runs as compare_runs
from .live import LiveRun as LiveRun, start as start, watch as watch
from .own_task import check_task as check_task, fit_recipe as fit_recipe, judge_task as judge_task
from .playground import playground as playground
from .reading import BlindReading as BlindReading, read_blind as read_blind
from .rollouts import browse_rollouts as browse_rollouts
