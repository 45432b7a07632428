//! The program `fastcp-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fastcp_cli::server::main()
}
