//! The program `pegasus`.

use pegasus_shell::cli::{Cli, parse};
use pegasus_shell::context::Context;
use pegasus_shell::output::{Failure, Outcome, Style};
use pegasus_shell::{commands, prompt};

/// Exit code of a failure.
const EXIT_FAILURE: i32 = 2;

fn main() {
    let cli = parse(std::env::args_os().skip(1)).unwrap_or_else(|error| error.exit());
    let style = if cli.global.json { Style::Json } else { Style::Text };
    let code = match run(cli) {
        Ok(ending) => ending as i32,
        Err(failure) => {
            style.show_failure(&failure);
            EXIT_FAILURE
        }
    };
    // Not a return: a thread may be blocked in a read of standard input.
    std::process::exit(code);
}

fn run(cli: Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("runtime", format!("cannot start the runtime: {error}")))?;
    match cli.command {
        None => prompt::run(&runtime, cli.global),
        Some(command) => runtime.block_on(async {
            let context = Context::new(cli.global);
            let outcome = commands::run(&context, command).await;
            if let Some(client) = context.connected() {
                client.close().await;
            }
            outcome
        }),
    }
}
