from .script import main as main
