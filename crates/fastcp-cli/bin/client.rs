//! The program `fastcp-client`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fastcp_cli::client::main()
}
