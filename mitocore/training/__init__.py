"""How a training is refused before a voxel is read, and what is left to do if it is not."""

from mitocore.training.plan import PlannedObjective, TrainingPlan
from mitocore.training.planner import plan_training

__all__ = ["PlannedObjective", "TrainingPlan", "plan_training"]
