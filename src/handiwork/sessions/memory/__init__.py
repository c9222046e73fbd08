"""Memory stores of a session: mounted in its sandbox, and kept in step with the brain's."""
