"""The command line. Every command imports what it needs when it runs: `--help` answers at once."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import events, operations
from cluster.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    ClientToken,
    ConfigFile,
    FrequencyPenalty,
    MaxTokens,
    MinP,
    PresencePenalty,
    RayAddress,
    RepetitionPenalty,
    Retries,
    Seed,
    Settings,
    Stop,
    Temperature,
    TopK,
    TopP,
    client_of,
    refused,
)
from cluster.settings.config import Config, load_config

app = typer.Typer(
    help="Serve Mixtral with one process per expert.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _config(file: Path | None, settings: list[str] | None, **options: str | bool) -> Config:
    given = [f"{key.replace('__', '.')}={value}" for key, value in options.items() if value not in ("", False)]
    try:
        return load_config(file, os.environ, [*(settings or []), *given])
    except ValueError as error:
        raise refused(error) from None


@app.command()
def serve(
    config: ConfigFile = None,
    model: Annotated[str, typer.Option(help="Checkpoint folder, hub id, or demo.")] = "",
    listen: Annotated[str, typer.Option(help="gRPC HOST:PORT.")] = "",
    http: Annotated[str, typer.Option(help="HTTP HOST:PORT.")] = "",
    ray_address: RayAddress = "",
    settings: Settings = None,
    token_file: Annotated[str, typer.Option(help="Hashes of the tokens that callers need; see `token`.")] = "",
    insecure: Annotated[bool, typer.Option(help="Listen beyond loopback without tokens.")] = False,
    keep_actors: Annotated[bool, typer.Option(help="Leave the actors for the next serve.")] = False,
) -> None:
    """Bring head, experts and gateway up, and serve until SIGINT or SIGTERM."""
    loaded = _config(
        config,
        settings,
        model__path=model,
        gateway__listen=listen,
        gateway__http=http,
        cluster__ray_address=ray_address,
        security__token_file=token_file,
        security__insecure=insecure,
    )
    from cluster.launch.serve import serve as run

    raise typer.Exit(run(loaded, keep_actors))


@app.command()
def down(config: ConfigFile = None, ray_address: RayAddress = "", settings: Settings = None) -> None:
    """Remove whatever a serve left behind."""
    loaded = _config(config, settings, cluster__ray_address=ray_address)
    from cluster.launch.serve import down as run

    raise typer.Exit(run(loaded))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    max_tokens: MaxTokens = None,
    min_tokens: Annotated[int | None, typer.Option(help="No end before this many tokens.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on after an end-of-sequence token.")] = False,
    n: Annotated[int | None, typer.Option("--n", help="Number of continuations, 1 to 8.")] = None,
    logprobs: Annotated[int | None, typer.Option(help="With --json: log-probabilities, and this many others.")] = None,
    json_schema: Annotated[str, typer.Option(help="JSON schema of the answer, or @FILE.")] = "",
    regex: Annotated[str, typer.Option(help="Regular expression that the answer matches.")] = "",
    priority: Annotated[int, typer.Option(help="-100 to 100; higher runs first.")] = 0,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Deadline in seconds.")] = None,
    retries: Retries = 0,
    patience: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for a server that went away.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as one JSON object.")] = False,
) -> None:
    """Stream the continuation of a prompt. The exit code is 0, or 10 plus the gRPC status code."""
    from cluster.cli import terminal
    from cluster.client.client import Options

    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt  # the newline that echo adds
    options = Options(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=stop or (),
        ignore_eos=ignore_eos,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
        logprobs=logprobs,
        n=n,
        priority=priority,
        json_schema=_argument_or_file(json_schema),
        regex=regex,
    )
    with client_of(address, token_file) as client:
        code = terminal.generate(
            client, text, options, as_json=as_json, timeout=timeout, retries=retries, patience=patience
        )
    raise typer.Exit(code)


@app.command()
def chat(
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    system: Annotated[str, typer.Option(help="What the model is told before the conversation.")] = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    retries: Retries = 0,
) -> None:
    """Talk to the model: each line is a turn; /reset forgets, /exit leaves."""
    from cluster.cli import terminal
    from cluster.client.client import Options

    options = Options(
        max_tokens=max_tokens,
        stop=stop or (),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
    )
    with client_of(address, token_file) as client:
        code = terminal.chat(client, options, system=system, retries=retries)
    raise typer.Exit(code)


def _argument_or_file(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refused(ValueError(f"{text[1:]} cannot be read: {error}")) from None


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Whom the token is for.")],
    scope: Annotated[str, typer.Option(help="inference, cluster, or both with a comma between.")] = "inference",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Highest priority of its requests.")] = 0,
    file: Annotated[Path | None, typer.Option("--file", help="Server's token file, to add the hash to.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="New file for the token, which only you can read.")] = None,
) -> None:
    """Make a bearer token: it is printed or written once, and only its hash is kept."""
    from cluster.settings.tokens import append, keep_secret, new_token, parse_scopes

    try:
        secret, entry = new_token(name, parse_scopes(scope), priority)
        if out is not None:
            keep_secret(out, secret)
        if file is not None:
            try:
                append(file, entry)
            except ValueError:
                if out is not None:
                    out.unlink()  # nobody would take it
                raise
        else:
            print(f"add this line to the server's token file:\n{entry.line()}", file=sys.stderr)
    except ValueError as error:
        raise refused(error) from None
    if out is None:
        print(secret)


@app.command()
def doctor(config: ConfigFile = None, settings: Settings = None) -> None:
    """Check machine, packages, GPU, Ray, ports, checkpoint and configuration."""
    from cluster.launch.doctor import run

    raise typer.Exit(run(config, settings or []))


app.command()(operations.status)
app.command()(operations.scale)
app.command()(operations.drain)
app.command()(operations.policy)
app.command()(operations.top)
app.command()(events.events)


def main() -> None:
    """Entry point of the console script."""
    app()
