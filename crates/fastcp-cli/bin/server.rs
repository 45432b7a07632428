//! The program `fastcp-server`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: fastcp_cli::ExitingAllocator = fastcp_cli::ExitingAllocator;

fn main() -> ExitCode {
    fastcp_cli::server::main()
}
