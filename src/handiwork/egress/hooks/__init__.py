"""The hooks' process: what operators wrote in Python, run apart from everything that holds a key."""
