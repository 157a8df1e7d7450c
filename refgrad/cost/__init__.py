"""What does this computation cost, forward and backward, with no FLOP unexplained?"""
