//! The threads of a run, from first to last. To read the engine, begin here.
//!
//! `receiver` pulls a tree, `preview` tells what it would do, `get` fetches one file, `server` answers. They put together
//! what the other folders hold.
//!
//! May import: plan, reuse, commit, schedule, link, manifest, target, sender, content.
//! Nothing imports this folder.

pub(crate) mod control;
pub(crate) mod get;
pub(crate) mod preview;
pub(crate) mod pull;
pub(crate) mod receiver;
pub(crate) mod server;
