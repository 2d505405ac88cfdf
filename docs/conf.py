"""The site that `make docs` builds: README, docs/, the notebooks, a reference of the public names.

The sources lie where they are in the project, so that a relative link leads to the same page here
and on GitHub. Nothing is executed and the library is not imported: notebooks show their committed
outputs, and sphinx-autoapi reads the reference from the stubs and the source.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

project = "INTUITOR"
version = PYPROJECT["project"]["version"]
root_doc = "README"
include_patterns = [
    *("README.md", "CHANGELOG.md", "LOG.md", "data/README.md"),
    *("docs/*.md", "docs/api/**", "notebooks/*.ipynb"),
]
extensions = ["myst_nb", "autoapi.extension", "sphinx.ext.napoleon"]

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = html_show_copyright = False
html_additional_pages = {"index": "index.html"}  # leads to README
templates_path = ["_templates"]
add_module_names = False
highlight_language = "text"
smartquotes_action = "De"  # dashes and ellipses; quotes stay as in code
default_role = "py:obj"  # a link where the name is described, else code

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autoapi_dirs = ["intuitor_lib"]
autoapi_root = "docs/api"  # removed after the build
autoapi_file_patterns = ["*.pyi", "*.py"]
autoapi_options = ["members", "undoc-members", "imported-members"]
autoapi_own_page_level = "module"
autoapi_add_toctree_entry = False
autoapi_template_dir = "docs/_templates"
# A public name that is not found fails the build in `public_names`; private ones do not matter.
suppress_warnings = ["autoapi.python_import_resolution"]

# The contents of the site; on GitHub, README has links instead.
TOCTREE = """
```{{toctree}}
:hidden:
:caption: {}
:glob:
{}
```
"""
CONTENTS = {
    "Manual": "docs/running docs/lab docs/sharing docs/evaluation docs/choices docs/memory "
    "docs/speed docs/several_gpus docs/vllm",
    "Results": "docs/findings docs/protocol docs/replication LOG data/README",
    "Notebooks": "notebooks/*",
    "Reference": "docs/api/intuitor_lib/index",
    "Project": "docs/extending docs/developing CHANGELOG",
}


def package_docstring(package):
    """The docstring of a package. It stands in `__init__.py`; autoapi reads the stub."""
    source = ROOT.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8")
    return restructured(ast.get_docstring(ast.parse(source)))


def public_names(package):
    """What a package's stub lists, in its order."""
    found = {child.name: child for child in package.children}
    stub = ast.parse(stub_of(package.id.split(".")).read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return [found[alias.name] for node in imports for alias in node.names]


def home(name):
    """Where a public name is described: in the lowest package whose stub lists it."""
    origin = name.obj["original_path"]
    return origin if stub_of(origin.split(".")[:-1]).exists() else name.id


def stub_of(package):
    return ROOT.joinpath(*package, "__init__.pyi")


def restructured(text):
    """reStructuredText of a docstring: `::` before indented code, a break within "`Table`s"."""
    text = re.sub(r"(?<!:):\n\n(?= {4})", "::\n\n", text)
    text = re.sub(r"(?<=/)\n(?= {4})", " ::\n\n", text)  # a folder with its files below
    return re.sub(r"(`\w+`)(?=\w)", r"\1\\ ", text)


def restructure(app, what, name, obj, options, lines):
    lines[:] = restructured("\n".join(lines)).split("\n")


def leave_out_modules(app, what, name, obj, skip, options):
    return skip or what == "module"


def add_contents(app, docname, source):
    if docname == root_doc:
        for caption, pages in CONTENTS.items():
            source[0] += TOCTREE.format(caption, "\n".join(pages.split()))


def autoapi_prepare_jinja_env(environment):
    filters = (package_docstring, public_names, home, restructured)
    environment.filters |= {each.__name__: each for each in filters}


def setup(app):
    app.connect("source-read", add_contents)
    app.connect("autoapi-skip-member", leave_out_modules)
    app.connect("autodoc-process-docstring", restructure)
