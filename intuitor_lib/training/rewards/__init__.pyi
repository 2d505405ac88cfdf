from .answers import (
    AccuracyReward as AccuracyReward,
    PluralityReward as PluralityReward,
    RandomReward as RandomReward,
    StatedReward as StatedReward,
    UnitTestReward as UnitTestReward,
)
from .confidence import (
    NegativeEntropyReward as NegativeEntropyReward,
    SelfCertaintyReward as SelfCertaintyReward,
)
from .factory import reward_functions as reward_functions
