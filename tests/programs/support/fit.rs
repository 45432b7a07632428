//! What a server has to be like after whatever was done to it.

use super::client::{Client, contents};
use super::compare::assert_same;
use super::server::Server;
use super::tree::plain;
use super::{Workspace, wait_until};

/// Panics unless the server is as good as new: no more descriptors than before, no panic, and the next push and pull
/// work.
pub(crate) fn expect_fit(server: &Server, workspace: &Workspace, descriptors: usize) {
    wait_until("the descriptors to be given back", || server.descriptors() <= descriptors);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    let source = plain(&workspace.at("of another push"));
    Client::push(contents(&source), server.url("another/push")).options("--retry 5").run().expect_exit(0);
    Client::pull(server.url("another/push/"), workspace.at("pulled")).run().expect_exit(0);
    assert_same(&source, &workspace.at("pulled"));
}
