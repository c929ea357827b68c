//! Every size, count and duration has bounds: on the command line and in the configuration file.

use crate::{
    errors::assert_complains,
    support::{Scratch, command, run},
};

/// An address at which nothing can be served: a program with good flags ends there, with 1.
const NOWHERE: &str = "--listen unix:/nowhere/x.sock";

const BYTES: &str = "1PiB";
const COUNT: &str = "2147483647";
const TIME: &str = "100years";

/// Each flag with a number, the least and the most it takes, and what is beyond.
#[rustfmt::skip]
const FLAGS: [(&str, &str, &str, &str); 29] = [
    ("max-frame",              "1",    BYTES,   "1125899906842625"),
    ("max-connections",        "1",    COUNT,   "2147483648"),
    ("max-connections-per-ip", "1",    COUNT,   "2147483648"),
    ("max-connections-per-net", "1",   COUNT,   "2147483648"),
    ("accept-rate",            "1",    "1000000", "1000001"),
    ("max-age",                "1ns",  TIME,    "100years 1s"),
    ("drain-spread",           "0s",   TIME,    "100years 1s"),
    ("high-watermark",         "0",    BYTES,   "1125899906842625"),
    ("low-watermark",          "0",    "64KiB", "65537"),
    ("output-cap",             "0",    BYTES,   "1125899906842625"),
    ("memory-budget",          "4KiB", BYTES,   "1125899906842625"),
    ("read-per-turn",          "1",    "64MiB", "67108865"),
    ("frames-per-turn",        "1",    COUNT,   "2147483648"),
    ("remote-max",             "1",    COUNT,   "2147483648"),
    ("tickets-max",            "1",    COUNT,   "2147483648"),
    ("answer-timeout",         "1ns",  TIME,    "100years 1s"),
    ("backlog",                "1",    "65535", "65536"),
    ("shards",                 "1",    "256",   "257"),
    ("unix-mode",              "0",    "777",   "1000"),
    ("idle-timeout",           "1ns",  TIME,    "100years 1s"),
    ("frame-timeout",          "1ns",  TIME,    "100years 1s"),
    ("write-timeout",          "1ns",  TIME,    "100years 1s"),
    ("keepalive",              "1s",   "32767s", "32768s"),
    ("keepalive-interval",     "1s",   "32767s", "32768s"),
    ("keepalive-count",        "1",    "127",   "128"),
    ("tcp-user-timeout",       "1s",   "2147483s", "2147484s"),
    ("drain-timeout",          "0s",   TIME,    "100years 1s"),
    ("slow-handler",           "1ns",  TIME,    "100years 1s"),
    ("busy-poll",              "1ns",  "1s",    "1001ms"),
];

/// What is tried everywhere, and may be good or bad.
const VALUES: [&str; 12] = [
    "0",
    "0s",
    "1",
    "1TiB",
    "16EiB",
    "17EiB",
    "18446744073709551615",
    "18446744073709551616",
    "999999999999s",
    "99999999999999999999s",
    "-1",
    "nonsense",
];

#[test]
fn every_number_is_taken_up_to_its_bound_and_refused_beyond_in_one_line() {
    for (flag, least, most, beyond) in FLAGS {
        for value in [least, most] {
            let output = run(command(NOWHERE).arg(format!("--{flag}={value}")));
            assert_complains(&output, 1, &["directory does not exist"]);
        }
        let output = run(command(NOWHERE).arg(format!("--{flag}={beyond}")));
        let bound = most.trim_end_matches(" 1s");
        assert_complains(&output, 2, &[&format!("--{flag}: "), bound]);
    }
}

#[test]
fn no_value_of_any_flag_ends_in_a_panic_or_without_its_name() {
    let linger = ("linger-timeout", "", "", "");
    for (flag, ..) in FLAGS.into_iter().chain([linger]) {
        for value in VALUES {
            let output = run(command(NOWHERE).arg(format!("--{flag}={value}")));
            let part =
                if output.status == 1 { "does not exist".into() } else { format!("--{flag}: ") };
            assert!([1, 2].contains(&output.status), "{flag}={value}: {}", output.status);
            assert_complains(&output, output.status, &[&part]);
        }
    }
}

#[test]
fn a_bound_holds_in_a_file_too_which_is_named() {
    let scratch = Scratch::new();
    for (flag, _, _, beyond) in FLAGS {
        let path = scratch.write("nonforker.toml", &format!("{flag} = '{beyond}'"));
        let output = run(&mut command(&format!("{NOWHERE} --config {}", path.display())));
        assert_complains(&output, 2, &[&format!("nonforker.toml: {flag}: ")]);
    }
    let path = scratch.write("nonforker.toml", "high-watermark = '1KiB'");
    let flags = format!("{NOWHERE} --low-watermark 2KiB --config {}", path.display());
    assert_complains(&run(&mut command(&flags)), 2, &["nonforker: --low-watermark: "]);
    let flags = format!("{NOWHERE} --config {}", path.display());
    assert_complains(&run(&mut command(&flags)), 1, &["directory does not exist"]);
}
