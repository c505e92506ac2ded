"""The options that every command has: they affect messages and configuration, not the output."""

from pathlib import Path

from redditgen.settings.options import command_settings, option, require


@command_settings
class GeneralSettings:
    quiet: bool = option(False, "Say nothing but warnings and errors.", "--quiet")
    verbose: bool = option(False, "Say also what was chosen, and when; and what the libraries say.", "--verbose")
    log_json: Path | None = option(
        None, "File to add messages to, a JSON object a line; also those that --quiet leaves out."
    )
    config: Path | None = option(
        None, "TOML file with a table a command, of its options.  [default: redditgen.toml, if it is there]"
    )
    print_config: bool = option(
        False, "Do nothing; print each option's value, and where it comes from.", "--print-config"
    )

    def __post_init__(self) -> None:
        require(not (self.quiet and self.verbose), "--quiet and --verbose: say less, or say more; leave out one")
