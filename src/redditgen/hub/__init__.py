"""Exchange of models with other programs: download of OpenAI's models, export of runs, model cards."""
