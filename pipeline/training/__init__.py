"""What the train stage is made of: the plan, who trains what, one worker's share of a round, and the vectors at the end."""
