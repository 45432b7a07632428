//! The program `fastcp-client`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: fastcp_cli::ExitingAllocator = fastcp_cli::ExitingAllocator;

fn main() -> ExitCode {
    fastcp_cli::client::main()
}
