"""Models from outside and for outside: downloads of OpenAI's models, exports of runs, model cards."""
