"""Trust: accuracy of each teacher on each domain, and the weights that policies make of it."""
