from .memory import MemoryEstimate as MemoryEstimate, estimate_memory as estimate_memory, gib as gib
from .monitor import Alarm as Alarm, alarms as alarms
from .readiness import Preflight as Preflight, preflight as preflight
from .rewards import (
    SelfCertaintyReward as SelfCertaintyReward,
    reward_functions as reward_functions,
)
from .trainer import IntuitorTrainer as IntuitorTrainer, grpo_config as grpo_config
from .training import train as train
