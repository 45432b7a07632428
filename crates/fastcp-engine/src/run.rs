//! The threads of a run, from first to last. To read the engine, begin here.
//!
//! `receiver` pulls a tree, `preview` tells what it would do, `get` fetches one file, `server` answers. They put together
//! what the other folders hold, may import all of them, and nothing imports them.

pub(crate) mod control;
pub(crate) mod get;
pub(crate) mod preview;
pub(crate) mod receiver;
pub(crate) mod server;
