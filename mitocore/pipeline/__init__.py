"""Planning: a pipeline is wired, checked and priced before a voxel is read."""

from mitocore.pipeline.planned import INPUT, Plan, PlannedStep, SavedArray, Wire, amount
from mitocore.pipeline.planner import plan
from mitocore.pipeline.wiring import selected

__all__ = ["INPUT", "Plan", "PlannedStep", "SavedArray", "Wire", "amount", "plan", "selected"]
