"""A run to new titles: prompts, rounds of sampling, filters and output.

From Python:

    from redditgen.generate import generate
    from redditgen.settings import GenerateSettings

    for title in generate(GenerateSettings(run="run1", keywords="cat sofa", n=5)):
        print(title.title)
"""

from redditgen.generate.command import generate, generate_for_prompts
from redditgen.generate.prompts import Prompt
from redditgen.generate.title import Title

__all__ = ["Prompt", "Title", "generate", "generate_for_prompts"]
