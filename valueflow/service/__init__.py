"""The evaluator for one request at a time, in asyncio."""
