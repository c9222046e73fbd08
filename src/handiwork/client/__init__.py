"""The Python SDK that users import."""
