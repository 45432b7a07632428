//! The threads of a run, from first to last. To read the engine, begin here.
//!
//! `receiver` brings a tree over, `preview` tells what it would do, `get` fetches one file, `server` answers whoever dials.
//! `pull` has a receiver dial; `push` has a sender dial, and `pushed` is the receiver at its other end, whose word
//! `relay` carries. They put together what the other folders hold.
//!
//! May import: plan, reuse, commit, schedule, link, manifest, target, sender, content.
//! Nothing imports this folder.

pub(crate) mod control;
pub(crate) mod drop;
pub(crate) mod get;
pub(crate) mod inbox;
pub(crate) mod list;
mod places;
mod preview;
pub(crate) mod pull;
pub(crate) mod push;
mod pushed;
mod receiver;
mod relay;
pub(crate) mod server;
