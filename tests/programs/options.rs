//! Options of the programs as they are typed and set: repeated, contradicted, misspelt, of another command.
//!
//! That holds for each option by itself is tested where they are defined; here, that the programs use it.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::Workspace;
use crate::support::client::contents;
use crate::support::server::Server;
use crate::support::tree::plain;

const CLIENT: &str = env!("CARGO_BIN_EXE_fastcp-client");
const SERVER: &str = env!("CARGO_BIN_EXE_fastcp-server");

fn run(program: &str, words: &str, variables: &[(&str, &str)], paths: &[&Path]) -> Output {
    let mut command = Command::new(program);
    command.args(words.split_whitespace()).args(paths).envs(variables.iter().copied());
    command.output().expect("run the program")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn options_may_be_repeated_and_contradicted() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for words in [
        "pull --conns 8 --conns 16 --chunk-kb 4 --chunk-kb 64 --json --json -n -n",
        "--conns 8 pull --conns 16 -W --no-whole-file -q -v -n --no-dry-run",
        "pull -avz --no-compress --compress-level 3",
    ] {
        let output = run(CLIENT, words, &[], &[&contents(&source), &workspace.at("copy")]);
        assert_eq!(output.status.code(), Some(0), "{words}: {}", stderr(&output));
    }
    assert!(workspace.at("copy/sub").exists(), "the last word was --no-dry-run");
}

#[test]
fn compression_that_does_nothing_is_reported() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for (words, times) in [("pull -az", 1), ("pull -az --compress-level 3", 0), ("pull -az --no-compress", 0)] {
        let output = run(CLIENT, words, &[], &[&contents(&source), &workspace.at("copy")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output).matches("-z does nothing for a local source").count(), times, "{words}");
    }
}

#[test]
fn the_environment_sets_options_and_a_bad_value_names_the_variable() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let pull = |variable: (&str, &str)| run(CLIENT, "pull", &[variable], &[&contents(&source), &workspace.at("copy")]);
    for value in ["1", "yes", "true"] {
        assert_eq!(pull(("FASTCP_DRY_RUN", value)).status.code(), Some(0));
        assert!(!workspace.at("copy").exists(), "FASTCP_DRY_RUN={value}");
    }
    for (name, value) in [("FASTCP_DRY_RUN", "maybe"), ("FASTCP_CONNS", "0"), ("FASTCP_DURABILITY", "some")] {
        let output = pull((name, value));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
    }
    for value in ["0", "no", "false", ""] {
        assert_eq!(pull(("FASTCP_DRY_RUN", value)).status.code(), Some(0));
        assert!(workspace.at("copy").exists(), "FASTCP_DRY_RUN={value}");
        std::fs::remove_dir_all(workspace.at("copy")).expect("remove");
    }
}

#[test]
fn a_misspelt_variable_is_reported_once_and_not_with_q() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for (words, times) in [("pull", 1), ("pull -q", 0)] {
        let variables = [("FASTCP_CONN", "8"), ("FASTCP_PORT", "tcp://10.0.0.1:9999"), ("FASTCP_INSECURE", "1")];
        let output = run(CLIENT, words, &variables, &[&contents(&source), &workspace.at("copy")]);
        assert_eq!(output.status.code(), Some(0));
        let said = stderr(&output);
        assert_eq!(said.matches("did you mean FASTCP_CONNS?").count(), times, "{said}");
        assert_eq!(said.matches("ignored").count(), times, "{said}");
    }
}

#[test]
fn what_only_clients_know_does_not_stop_the_server() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let output = run(SERVER, "--conns bad", &[], &[&source]);
    assert_eq!(output.status.code(), Some(1));
    let server = Server::start_in_environment(&source, &[("FASTCP_CONNS", "auto"), ("FASTCP_RETRY", "never")]);
    assert_eq!(run(CLIENT, "pull", &[], &[Path::new(&server.url("")), &workspace.at("copy")]).status.code(), Some(0));
}

#[test]
fn help_begins_with_what_a_program_is_for_and_shows_the_options_of_the_command() {
    let help = |program, words: &str| String::from_utf8(run(program, words, &[], &[]).stdout).expect("UTF-8");
    assert!(help(CLIENT, "--help").starts_with("Copy directory trees"));
    assert!(help(SERVER, "--help").starts_with("Serve a directory"));
    for (words, lacks) in
        [("get -h", "--conns"), ("get -h", "--delete"), ("verify -h", "--dry-run"), ("pull -h", "-crc")]
    {
        let text = help(CLIENT, words);
        assert!(text.contains("Usage:") && !text.contains(lacks), "{words} shows {lacks}: {text}");
    }
}

#[test]
fn mistakes_are_explained_and_make_nothing() {
    let workspace = Workspace::new();
    for (words, advice) in [
        ("pul fcp://localhost/ copy", "did you mean 'pull'?"),
        ("gte localhost 9", "did you mean 'get'?"),
        ("push fcp://localhost/ a", "what is pushed has to be on this machine"),
        ("sync localhost 9", "use pull"),
        ("-a source/ copy/", "did you mean 'fastcp-client pull source/ copy/'?"),
        ("pull a b --files-from x", "fastcp does not have rsync's --files-from yet"),
        ("pull a b --no-archive", "always preserved"),
        ("get localhost 9 file --delete", "unexpected argument '--delete'"),
        ("verify a b --durability none", "unexpected argument '--durability'"),
        ("verify a b -z", "an option of pull: leave it out"),
        ("verify a", "<FROM>, or --manifest <FILE>"),
    ] {
        let mut command = Command::new(CLIENT);
        let output = command.current_dir(workspace.at("")).args(words.split_whitespace()).output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(stderr(&output).contains(advice), "{words}: {}", stderr(&output));
    }
    assert_eq!(std::fs::read_dir(workspace.at("")).expect("read").count(), 0);
}

#[test]
fn a_place_on_another_machine_is_no_destination() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for place in
        ["host:copy", "host:/copy", "user@host:copy", "fcp://127.0.0.1:9999/", "127.0.0.1:9999", "host::module"]
    {
        for words in [&["pull", "source", place][..], &[place, "127.0.0.1", "9"], &["verify", place, "source"]] {
            let output = Command::new(CLIENT).args(words).current_dir(source.parent().expect("a parent")).output();
            let output = output.expect("run the program");
            assert_eq!(output.status.code(), Some(1), "{words:?}: {}", stderr(&output));
            assert!(stderr(&output).contains(&format!("\"./{place}\"")), "{}", stderr(&output));
        }
        assert!(!workspace.at(place).exists(), "{place}");
    }
    let output = run(CLIENT, "pull", &[], &[&contents(&source), &workspace.at("a:b")]);
    assert_eq!(output.status.code(), Some(0), "a path with a slash before its colon: {}", stderr(&output));
}
