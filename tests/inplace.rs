//! `--inplace`: the file that is there is written into.

mod support;

use std::fs;

use support::Workspace;
use support::client::{Client, contents};
use support::compare::assert_same;
use support::tree::{Tree, noise};

#[test]
fn what_was_there_never_shows_through_a_hole() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.sparse("small", 60_000, &[(20_000, b"island")]).sparse("large", 6 << 20, &[(2 << 20, &noise(100_000, 2))]);
    let source = tree.finish();
    for options in ["", "--no-whole-file", "--chunk-kb 64 --conns 8", "--no-compress --receive-path splice"] {
        let copy = workspace.at(&format!("copy {options}"));
        fs::create_dir(&copy).expect("create");
        fs::write(copy.join("small"), noise(50_000, 3)).expect("write");
        fs::write(copy.join("large"), noise(7 << 20, 4)).expect("write");
        let options = format!("--inplace {options}");
        Client::pull(contents(&source), &copy).options(&options).run().expect_exit(0);
        assert_same(&source, &copy);
    }
}
