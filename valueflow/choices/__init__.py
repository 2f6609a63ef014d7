"""Questions with a choice of lettered options, put to LLMs: what OpinionQA and questionnaires share."""
