"""The parts of the train stage: the plan, the placement of copies, one worker's share of a round, and the resulting vectors."""
