"""The gvisor tier: the agent on gVisor's kernel, inside the namespaces of the launcher."""
