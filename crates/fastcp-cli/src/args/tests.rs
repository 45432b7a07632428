use std::collections::HashMap;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Error, FromArgMatches};
use fastcp_engine::{Connections, MaxDelete};

use super::environment::{may_be_set, variable_of};
use super::rsync;
use super::{ClientArgs, ClientCommand, PullOptions, ServerArgs, client, parse, server};

fn parse_with<T: FromArgMatches>(command: Command, words: &[&str], variables: &[(&str, &str)]) -> Result<T, Error> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let words = std::iter::once("program").chain(words.iter().copied()).map(OsString::from).collect();
    parse(command, words, |name| variables.get(name).map(OsString::from))
}

fn parsed(words: &[&str]) -> Result<ClientArgs, Error> {
    parse_with(client(), words, &[])
}

/// The options of a pull with these words and variables.
fn pull(words: &[&str], variables: &[(&str, &str)]) -> PullOptions {
    let words = [words, &["pull", "a", "b"]].concat();
    let args: ClientArgs = parse_with(client(), &words, variables).unwrap_or_else(|error| panic!("{error}"));
    match args.command {
        Some(ClientCommand::Pull(args)) => args.options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_behind_two_dashes_keeps_its_letters() {
    let args = parsed(&["pull", "-avh", "a", "--", "-photos"]).expect("lawful");
    let Some(ClientCommand::Pull(pull)) = args.command else { panic!("a pull") };
    assert_eq!(pull.dst_dir, std::path::Path::new("-photos"));
}

#[test]
fn definitions_are_sound() {
    client().debug_assert();
    server().debug_assert();
}

/// Each command with words that it needs.
fn commands() -> Vec<(Command, Vec<&'static str>)> {
    let mut client = client();
    client.build();
    let sub = |name: &str| client.find_subcommand(name).expect("there").clone();
    vec![
        (client.clone(), vec!["dst", "host", "1"]),
        (sub("pull"), vec!["from", "dst"]),
        (sub("push"), vec!["src", "to"]),
        (sub("verify"), vec!["dst", "from"]),
        (sub("ls"), vec!["from"]),
        (sub("drop"), vec!["file", "host", "1"]),
        (sub("get"), vec!["host", "1", "path"]),
        (server(), vec!["src"]),
    ]
}

/// Two values that an option takes.
fn two_values(arg: &Arg) -> [String; 2] {
    let possible = arg.get_possible_values();
    if let [first, second, ..] = possible.as_slice() {
        return [first.get_name().to_owned(), second.get_name().to_owned()];
    }
    ["5".to_owned(), "7".to_owned()]
}

#[test]
fn the_last_of_a_repeated_option_wins_for_each_option() {
    for (command, needed) in commands() {
        // What may come several times is not repeated.
        let is_one = |arg: &&Arg| !arg.is_positional() && !matches!(arg.get_action(), ArgAction::Append);
        for arg in command.get_arguments().filter(is_one) {
            let long = arg.get_long().expect("every option has a long name");
            let words = |words: &[String]| {
                let name = command.get_name().to_owned();
                let is_in_place_of_from = name == "verify" && long == "manifest";
                let needed = if is_in_place_of_from { &needed[..1] } else { &needed };
                std::iter::once(name).chain(needed.iter().map(|&word| word.to_owned())).chain(words.to_vec()).collect()
            };
            let matches = |given: &[String]| {
                let all: Vec<String> = words(given);
                let matches = command.clone().try_get_matches_from(&all);
                matches.unwrap_or_else(|error| panic!("{all:?}: {error}"))
            };
            match arg.get_action() {
                ArgAction::Set => {
                    let [first, last] = two_values(arg);
                    let given = matches(&[format!("--{long}={first}"), format!("--{long}={last}")]);
                    let value = given.get_raw(arg.get_id().as_str()).expect("a value").next_back().expect("one");
                    assert_eq!(value.to_str(), Some(last.as_str()), "--{long}");
                    assert_eq!(given.get_raw(arg.get_id().as_str()).expect("a value").len(), 1);
                }
                ArgAction::SetTrue => {
                    let id = arg.get_id().as_str();
                    let name = format!("--{long}");
                    assert!(matches(&[name.clone(), name.clone()]).get_flag(id), "{name}");
                    let negation = if long == "no-compress" { "--compress".to_owned() } else { format!("--no-{long}") };
                    if !long.starts_with("no-") && rsync::always(long).is_none() {
                        assert!(!matches(&[name.clone(), negation.clone()]).get_flag(id), "{negation}");
                        assert!(matches(&[negation, name]).get_flag(id), "{long}");
                    }
                }
                ArgAction::Count => {
                    assert_eq!(
                        matches(&[format!("--{long}"), format!("--{long}")]).get_count(arg.get_id().as_str()),
                        2
                    );
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_last_of_contradicting_options_wins() {
    let whole = |words: &[&str]| {
        let copy = pull(words, &[]).copy;
        (copy.whole_file, copy.no_whole_file)
    };
    assert_eq!(whole(&[]), (false, false));
    assert_eq!(whole(&["-W", "--no-whole-file"]), (false, true));
    assert_eq!(whole(&["--no-whole-file", "-W"]), (true, false));
    let compress = |words: &[&str]| {
        let copy = pull(words, &[]).copy;
        (copy.no_compress, copy.compress_level)
    };
    assert_eq!(compress(&["--no-compress", "--compress-level", "3"]), (false, Some(3)));
    assert_eq!(compress(&["--compress-level", "3", "--no-compress"]), (true, None));
    assert_eq!(compress(&["--no-compress", "-z"]), (false, None));
    let log = |words: &[&str]| {
        let log = pull(words, &[]).output.log;
        (log.quiet, log.verbose)
    };
    assert_eq!((log(&["-v", "-q"]), log(&["-q", "-vv"])), ((true, 0), (false, 2)));
}

#[test]
fn the_far_end_is_what_was_typed_last() {
    let far_end = |words: &[&str], variables: &[(&str, &str)]| {
        let shell = pull(words, variables).shell;
        (shell.remote_bin.is_some(), shell.deploy, shell.deploy_bin.is_some(), shell.no_deploy)
    };
    for (words, wanted) in [
        (&["--remote-bin", "x", "--deploy"][..], (false, true, false, false)),
        (&["--deploy", "--deploy-bin", "x", "--remote-bin", "x"], (true, false, false, false)),
        (&["--deploy", "--no-deploy", "--remote-bin", "x"], (true, false, false, true)),
        (&["--no-deploy", "--deploy-bin", "x"], (false, false, true, false)),
    ] {
        assert_eq!(far_end(words, &[]), wanted, "{words:?}");
    }
    let variables = [("FASTCP_DEPLOY", "1")];
    assert_eq!(far_end(&[], &variables), (false, true, false, false));
    assert_eq!(far_end(&["--no-deploy"], &variables), (false, false, false, true));
    assert_eq!(far_end(&["--remote-bin", "x"], &variables), (true, false, false, false));
    assert_eq!(far_end(&[], &[("FASTCP_DEPLOY", "0")]), (false, false, false, true));
}

#[test]
fn each_switch_can_be_set_by_the_environment_in_the_usual_words() {
    for (command, needed) in commands() {
        for arg in command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue)) {
            let long = arg.get_long().expect("every option has a long name");
            if !may_be_set(arg, long) {
                continue;
            }
            let variable = variable_of(long);
            let given = |value: &str, typed: &[&str]| -> Result<bool, Error> {
                let words: Vec<&str> = std::iter::once(command.get_name()).chain(needed.iter().copied()).collect();
                let typed = command.clone().try_get_matches_from([words.as_slice(), typed].concat())?;
                let found = super::environment::words(&command, &typed, |name| {
                    (name == variable).then(|| OsString::from(value))
                })?;
                let words = words.iter().map(OsString::from);
                let matches = command.clone().try_get_matches_from(words.chain(found))?;
                Ok(matches.get_flag(arg.get_id().as_str()))
            };
            for (value, is_set) in [("1", true), ("true", true), ("YES", true), ("on", true), ("", false)] {
                assert_eq!(given(value, &[]).expect("taken"), is_set, "{variable}={value}");
            }
            for value in ["0", "false", "no", "Off"] {
                if rsync::always(long).is_some() {
                    let error = given(value, &[]).expect_err("refused").to_string();
                    assert!(error.contains(&format!("{variable} cannot be turned off")), "{error}");
                    continue;
                }
                assert!(!given(value, &[]).expect("taken"), "{variable}={value}");
            }
            let error = given("maybe", &[]).expect_err("refused").to_string();
            assert!(error.contains(&variable) && error.contains("maybe"), "{error}");
        }
    }
}

#[test]
fn each_value_can_be_set_by_the_environment_and_a_bad_one_names_the_variable() {
    let options = pull(&[], &[("FASTCP_CONNS", "auto"), ("FASTCP_DURABILITY", "file"), ("FASTCP_RETRY", "")]);
    assert_eq!((options.link.conns, options.link.retry.retry), (Connections::Auto, 30));
    assert_eq!(options.copy.durability, fastcp_engine::Durability::File);
    for (name, value) in [("FASTCP_CONNS", "many"), ("FASTCP_VERIFY", "never"), ("FASTCP_CHUNK_KB", "1")] {
        let error = parse_with::<ClientArgs>(client(), &["pull", "a", "b"], &[(name, value)]).expect_err("refused");
        assert!(error.to_string().contains(name), "{error}");
        // What the command has no option for is not looked at.
        parse_with::<ClientArgs>(client(), &["get", "h", "1", "p"], &[(name, value)]).expect("taken");
    }
}

#[test]
fn what_is_typed_has_precedence_over_the_environment() {
    let options = pull(&["--conns", "8", "--no-dry-run"], &[("FASTCP_CONNS", "bad"), ("FASTCP_DRY_RUN", "1")]);
    assert_eq!((options.link.conns, options.changes.dry_run), (Connections::Fixed(8), false));
    let options = pull(&["--compress-level", "3"], &[("FASTCP_NO_COMPRESS", "1")]);
    assert_eq!((options.copy.no_compress, options.copy.compress_level), (false, Some(3)));
    assert!(pull(&["-W"], &[("FASTCP_WHOLE_FILE", "0")]).copy.whole_file);
    assert!(pull(&[], &[("FASTCP_WHOLE_FILE", "0")]).copy.no_whole_file);
    let options = pull(&["--backup-dir", "kept"], &[("FASTCP_INPLACE", "1")]);
    assert!(!options.copy.inplace && options.changes.backup_dir.is_some());
    let verify = parse_with(client(), &["verify", "a", "b"], &[("FASTCP_MANIFEST", "m")]).expect("taken");
    let ClientArgs { command: Some(ClientCommand::Verify(args)), .. } = verify else { panic!("verify") };
    assert_eq!(args.manifest, None);
    let delete = [("FASTCP_DELETE", "1"), ("FASTCP_FORCE_EMPTY", "1")];
    assert!(!pull(&[], &delete).changes.delete, "deletion has to be typed");
}

#[test]
fn variables_that_nothing_reads_are_reported_where_they_look_like_a_mistake() {
    let reported = |name: &str| super::mistaken_variables([(name.into(), "1".into())].into_iter());
    for (name, advice) in [
        ("FASTCP_CONN", "did you mean FASTCP_CONNS?"),
        ("FASTCP_DRYRUN", "did you mean FASTCP_DRY_RUN?"),
        ("FASTCP_RETYR", "did you mean FASTCP_RETRY?"),
        ("FASTCP_INSECUR", "did you mean FASTCP_INSECURE?"),
        ("FASTCP_DELETE", "FASTCP_DELETE is ignored: --delete has to be typed"),
        ("FASTCP_MAX_DELETE", "--max-delete has to be typed"),
        ("FASTCP_VERBOSE", "--verbose has to be typed"),
        ("FASTCP_NO_DRY_RUN", "use FASTCP_DRY_RUN=0"),
    ] {
        let warnings = reported(name);
        assert!(warnings.len() == 1 && warnings[0].contains(advice), "{name}: {warnings:?}");
    }
    let of_others = ["FASTCP_PORT", "FASTCP_SERVICE_HOST", "FASTCP_SERVICE_PORT", "FASTCP_PORT_9999_TCP_ADDR"];
    let of_tests = ["FASTCP_SEED", "FASTCP_LONG_TESTS", "FASTCP_TEST_UNDER", "FASTCP_CHECK_SKIP_TESTS"];
    let known = ["FASTCP_INSECURE", "FASTCP_CONNS", "FASTCP_NO_COMPRESS", "FASTCP_WITHOUT", "FASTCP_REQUIRE_CRC"];
    for name in of_others.into_iter().chain(of_tests).chain(known).chain(["FASTCPCONN", "CONN"]) {
        assert_eq!(reported(name), [""; 0]);
    }
    assert!(super::mistaken_variables([("FASTCP_CONN".into(), "".into())].into_iter()).is_empty());
}

#[test]
fn what_only_clients_know_does_not_stop_a_server() {
    let server = |variables| parse_with::<ServerArgs>(server(), &["src"], variables);
    assert_eq!(server(&[("FASTCP_CONNS", "auto")]).expect("taken").conns, 64);
    assert_eq!(server(&[("FASTCP_CONNS", "8"), ("FASTCP_RETRY", "soon")]).expect("taken").conns, 8);
    assert!(server(&[("FASTCP_INSECURE", "yes")]).expect("taken").insecure);
    assert!(server(&[("FASTCP_CONNS", "none")]).expect_err("refused").to_string().contains("FASTCP_CONNS"));
}

#[test]
fn options_may_stand_before_the_command() {
    for words in [["--conns", "8", "pull", "a", "b"], ["pull", "a", "b", "--conns", "8"]] {
        let args = parsed(&words).expect("taken");
        assert!(
            matches!(args.command, Some(ClientCommand::Pull(args)) if args.options.link.conns == Connections::Fixed(8))
        );
    }
    let args = parsed(&["--require-crc", "--retry", "3", "get", "h", "1", "p"]).expect("taken");
    assert!(matches!(args.command, Some(ClientCommand::Get(args)) if args.require_crc && args.retry.retry == 3));
    let short = parsed(&["--conns=8", "-nv", "dst", "host", "9999"]).expect("taken");
    assert_eq!((short.options.link.conns, short.port), (Connections::Fixed(8), Some(9999)));
    let named = parsed(&["--", "pull", "host", "1"]).expect("a directory");
    assert_eq!(named.dst_dir, Some("pull".into()));
}

#[test]
fn each_command_refuses_the_options_of_others_by_name() {
    for (words, option) in [
        (&["get", "h", "1", "p"][..], "--delete"),
        (&["get", "h", "1", "p"], "--conns"),
        (&["verify", "a", "b"], "--dry-run"),
        (&["verify", "a", "b"], "--durability"),
        (&["pull", "a", "b"], "--require-crc"),
    ] {
        let error = parsed(&[words, &[option]].concat()).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::UnknownArgument);
        assert!(error.to_string().contains(option), "{error}");
    }
    let error = parsed(&["verify", "a", "--manifest", "m", "--conns", "3"]).expect_err("refused");
    assert!(error.to_string().contains("--conns"), "{error}");
}

#[test]
fn mistaken_commands_are_not_taken_for_directories() {
    for (words, advice) in [
        (&["pul", "fcp://h/", "dst"][..], "did you mean 'pull'"),
        (&["gte", "host", "9999"], "did you mean 'get'"),
        (&["verfy", "a", "b"], "did you mean 'verify'"),
        (&["psh", "a", "fcp://h/"], "did you mean 'push'"),
        (&["finish", "host", "9999"], "finish is not supported yet"),
        (&["sync", "a", "b"], "use pull"),
        (&["-a", "sync", "a", "b"], "use pull"),
        (&["src/", "dst/"], "did you mean 'fastcp-client pull src/ dst/'"),
        (&["dst", "127.0.0.1:5999"], "did you mean 'fastcp-client pull fcp://127.0.0.1:5999 dst'"),
        (&["dst", "fcp://host/"], "did you mean 'fastcp-client pull fcp://host/ dst'"),
        (&["host:5999", "dst"], "did you mean 'fastcp-client pull fcp://host:5999 dst'"),
        (&["--stats", "a b", "c"], "fastcp does not have rsync's --stats yet"),
        (&["a b", "c"], "did you mean 'fastcp-client pull \"a b\" c'"),
        (&["help", "pul"], "did you mean 'pull'?"),
    ] {
        let error = parsed(words).expect_err("refused").to_string();
        assert!(error.contains(advice), "{words:?}: {error}");
    }
    for words in [["./pul", "host", "9999"], ["photos", "host", "9999"]] {
        assert!(parsed(&words).is_ok(), "{words:?}");
    }
}

#[test]
fn options_of_rsync_are_explained() {
    for words in ["-avz", "-avzh", "-ah", "-rlptgo", "-a --recursive --links --perms --times --group --owner"] {
        pull(&words.split(' ').collect::<Vec<_>>(), &[]);
    }
    for (option, advice) in [
        ("--files-from=x", "several FROM may be given"),
        ("-P", "progress"),
        ("-H", "separate"),
        ("-x", "mounted below the source"),
        ("-avxz", "rsync's -x yet"),
        ("--rsync-path=x", "--remote-bin PROGRAM"),
        ("--link-dest=x", "--backup-dir DIR"),
        ("--timeout=3", "use --retry SECONDS"),
        ("--no-archive", "always preserved"),
        ("--no-perms", "always preserved"),
        ("--no-o", "always preserved"),
        ("--no-D", "leave out --no-D"),
    ] {
        let error = parsed(&["pull", "a", "b", option]).expect_err("refused").to_string();
        assert!(error.contains(advice) && error.contains("fastcp does not have rsync's"), "{error}");
        assert!(error.matches("tip:").count() <= 1, "{error}");
    }
}

#[test]
fn verify_accepts_what_it_does_anyway_and_says_what_to_leave_out() {
    for options in ["-a", "-r", "-v", "-c", "-rlptgo", "-avh", "--archive", "--checksum", "--human-readable"] {
        parsed(&["verify", "a", "b", options]).expect("accepted");
    }
    for (words, advice) in [
        (&["verify", "a", "b", "-z"][..], "an option of pull: leave it out"),
        (&["verify", "a", "b", "-avz"], "an option of pull: leave it out"),
        (&["verify", "a", "b", "-n"], "an option of pull: leave it out"),
        (&["verify", "a", "b", "-i"], "an option of pull: leave it out"),
        (&["verify", "a", "b", "--delete"], "an option of pull: leave it out"),
        (&["verify", "a", "b", "--require-crc"], "an option of get: leave it out"),
        (&["get", "h", "1", "p", "-n"], "an option of pull: leave it out"),
        (&["verify", "a", "b", "--no-checksum"], "--no-checksum"),
        (&["verify", "a"], "<FROM>, or --manifest <FILE>"),
        (&["verify"], "<DIR>"),
        (&["verify", "fcp://h/", "a"], "a local directory, before what to compare it with"),
    ] {
        let error = parsed(words).expect_err("refused").to_string();
        assert!(error.contains(advice) && !error.contains("DST_DIR"), "{words:?}: {error}");
    }
}

#[test]
fn only_options_of_the_help_are_suggested() {
    for (words, advice) in [
        (&["pull", "a", "b", "--itemize"][..], "did you mean '--itemize-changes'?"),
        (&["pull", "a", "b", "--delet"], "did you mean '--delete'?"),
        (&["get", "h", "1", "p", "--delete"], "an option of pull"),
    ] {
        let error = parsed(words).expect_err("refused").to_string();
        assert!(error.contains(advice), "{error}");
    }
    for option in ["--with", "--withou", "--receive", "--nonsense", "-y"] {
        let error = parsed(&["pull", "a", "b", option]).expect_err("refused").to_string();
        assert!(!error.contains("did you mean") && !error.contains("as a value"), "{error}");
    }
}

#[test]
fn errors_show_the_usage_of_their_command_and_speak_of_numbers_in_words() {
    for (words, usages) in [
        (&["pull", "a"][..], 1),
        (&["pull", "a", "b", "--nonsense"], 1),
        (&["verify", "a"], 2),
        (&["get", "h", "1", "p", "--nonsense"], 2),
        (&["src", "dst"], 2),
    ] {
        let error = parsed(words).expect_err("refused").to_string();
        assert_eq!(
            error.matches("fastcp-client ").count() - error.matches("'fastcp-client ").count(),
            usages,
            "{error}"
        );
    }
    for (words, expected) in [
        (&["pull", "a", "b", "--chunk-kb", "3"][..], "a number from 4 to 65536"),
        (&["pull", "a", "b", "--chunk-kb", "x"], "a number from 4 to 65536"),
        (&["pull", "a", "b", "--compress-level", "20"], "a number from 1 to 19"),
        (&["pull", "a", "b", "--conns", "x"], "a number from 1 to 64, or auto"),
        (&["pull", "a", "b", "--retry", "x"], "a number of seconds"),
        (&["a", "host", "99999"], "a number from 1 to 65535"),
        (&["a", "host", "0"], "a number from 1 to 65535"),
    ] {
        let error = parsed(words).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn options_that_would_do_nothing_are_refused_where_they_are_typed() {
    for (words, advice) in [
        (&["pull", "a", "b", "--manifest-hash", "sha256"][..], "--manifest-hash needs --manifest"),
        (&["a", "host", "9", "--manifest-hash", "sha256"], "--manifest-hash needs --manifest"),
        (&["pull", "fcp://h/", "b", "--compress-level", "3"], "fastcp-server --compress-level"),
        (&["pull", "FCP://h/", "b", "--compress-level", "3"], "fastcp-server --compress-level"),
        (&["a", "host", "9", "--compress-level", "3"], "fastcp-server --compress-level"),
    ] {
        let error = parsed(words).expect_err("refused").to_string();
        assert!(error.contains(advice), "{words:?}: {error}");
    }
    let variables = [("FASTCP_COMPRESS_LEVEL", "3"), ("FASTCP_MANIFEST_HASH", "sha256")];
    parse_with::<ClientArgs>(client(), &["pull", "fcp://h/", "b"], &variables).expect("meant for other runs");
    let words = ["pull", "a", "b", "--manifest-hash", "sha256"];
    parse_with::<ClientArgs>(client(), &words, &[("FASTCP_MANIFEST", "m")]).expect("there is a manifest");
    parsed(&["pull", "fcp://h/", "b", "--compress-level", "3", "--no-compress"]).expect("taken back");
    parse_with::<ServerArgs>(server(), &["src", "--compress-level", "3"], &[]).expect("the server's own");
}

#[test]
fn values_out_of_range_are_refused() {
    for count in ["0", "65", "-1", "many", ""] {
        assert!(parsed(&["pull", "a", "b", "--conns", count]).is_err(), "{count}");
    }
    for (text, max) in [("0", MaxDelete::Entries(0)), ("12", MaxDelete::Entries(12)), ("5%", MaxDelete::Percent(5))] {
        let changes = pull(&["--delete", "--max-delete", text], &[]).changes;
        assert_eq!(changes.max_delete, Some(max));
        assert!(changes.check().is_ok());
    }
    for text in ["-1", "101%", "%", "1.5", "many", ""] {
        assert!(parsed(&["pull", "a", "b", "--delete", "--max-delete", text]).is_err(), "{text}");
    }
    for words in [&["--max-delete", "1"][..], &["--force-empty"]] {
        assert!(pull(words, &[]).changes.check().is_err(), "{words:?}");
    }
    assert!(parsed(&["pull", "a"]).is_err());
}

/// Every row of docs/coming-from-rsync.md says what the command line does.
#[test]
fn coming_from_rsync() {
    let text = include_str!("../../../../docs/coming-from-rsync.md");
    let rows = text.lines().filter(|line| line.starts_with("| `-"));
    let mut seen = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for option in cells[1].split(", ").map(|option| option.trim_matches('`')) {
            seen += 1;
            let said = match parsed(&["pull", option, "1", "a", "b"]) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            let is_refused = said.contains("fastcp does not have rsync's");
            let is_unknown = said.contains("unexpected argument") && !is_refused;
            assert!(!is_unknown, "{option}: {said}");
            match cells[2] {
                "same" => assert!(!is_refused, "{option}: {said}"),
                "later" | "not wanted" => assert!(is_refused, "{option} is accepted"),
                "better" => {}
                other => panic!("{option}: {other}"),
            }
        }
    }
    assert!(seen > 150, "{seen}");
}
