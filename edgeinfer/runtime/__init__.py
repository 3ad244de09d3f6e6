"""Everything above ``Engine.step``: sampling, scheduling, generating, conversing."""
