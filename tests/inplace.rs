//! `--inplace` over an older version whose bytes are where the new one has holes.

mod support;

use std::fs;

use support::Workspace;
use support::client::{Client, contents};
use support::compare::assert_same;
use support::tree::{Tree, noise};

#[test]
fn holes_of_the_source_do_not_keep_old_bytes() {
    for (size, island) in [(60 << 10, 4 << 10), (900 << 10, 64 << 10), (9 << 20, 1 << 20)] {
        for options in ["--inplace", "--inplace --whole-file", "--inplace --chunk-kb 64 --whole-file"] {
            let workspace = Workspace::new();
            let mut tree = Tree::new(&workspace.at("source"));
            tree.sparse("file", size, &[(island, &noise(island, 1))]);
            let source = tree.finish();
            let copy = workspace.at("copy");
            fs::create_dir(&copy).expect("create");
            fs::write(copy.join("file"), noise(size, 2)).expect("write");
            Client::pull(contents(&source), &copy).options(options).run().expect_exit(0);
            assert_same(&source, &copy);
        }
    }
}
