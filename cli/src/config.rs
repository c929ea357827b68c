//! The configuration file: TOML whose keys are the long flags without their dashes.
//!
//! What it says takes the place of the flags' defaults. So every flag is a key, flags win over the
//! file, and a value means the same in both.

use std::{ffi::OsString, fs::File, io::Read, path::Path};

use clap::{
    ArgAction, ArgMatches, Command,
    builder::OsStr,
    error::{ContextKind, ErrorKind},
    parser::ValueSource,
};
use toml::{Table, Value};

use crate::{complaint::complaint, ending::Ending};

/// The most bytes of a configuration file.
const FILE_MAX: u64 = 1024 * 1024;

/// Keys that are flags and make no sense in a file.
const NOT_KEYS: [&str; 3] = ["config", "help", "version"];

/// Keys of which only one can be, as it is with their flags.
const EITHER: [(&str, &str); 4] =
    [("worker", "handler"), ("exec", "handler"), ("exec", "worker"), ("exec", "codec")];

/// Returns `command` with the settings of the file at `path` for the defaults of its subcommand `of`, or
/// of what it does without one. On the `line` are the flags that win, and `matches` is what it says.
pub(crate) fn apply(
    path: &Path,
    mut command: Command,
    of: Option<&'static str>,
    line: &[OsString],
    matches: &ArgMatches,
) -> Result<Command, Ending> {
    let usage = |what: String| Ending::Usage(format!("{}: {what}", path.display()));
    let is_on_line =
        |key: &str| matches.value_source(&key.replace('-', "_")) == Some(ValueSource::CommandLine);
    let mut table = read(path).map_err(usage)?;
    let (plain, mut together) = (command.clone(), line.to_vec());
    for (one, other) in EITHER.into_iter().filter(|_| of.is_none()) {
        if table.contains_key(one) && table.contains_key(other) {
            return Err(usage(format!("{one}: it cannot be used with {other}")));
        }
        for (key, flag) in [(one, other), (other, one)] {
            if is_on_line(flag) {
                // With what is said about it.
                table.retain(|name, _| !name.starts_with(key));
            }
        }
    }
    for (key, value) in table {
        let texts = texts(&key, &value).map_err(|what| usage(format!("{key}: {what}")))?;
        let checked = of.and_then(|of| command.find_subcommand(of)).unwrap_or(&command);
        check(checked, of, &key, &texts).map_err(usage)?;
        if !is_on_line(&key) {
            together.extend(texts.iter().filter_map(|text| match text.as_str() {
                "false" => None,
                "true" => Some(format!("--{key}").into()),
                text => Some(format!("--{key}={text}").into()),
            }));
        }
        let set = |command: Command| {
            let defaults = texts.iter().map(OsStr::from);
            command.mut_arg(key.replace('-', "_"), |arg| arg.default_values(defaults))
        };
        command = match of {
            Some(of) => command.mut_subcommand(of, set),
            None => set(command).mut_subcommand("serve", set),
        };
    }
    // What one key needs another for.
    match plain.try_get_matches_from(together) {
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            Err(usage(complaint(&error)))
        }
        _ => Ok(command),
    }
}

fn read(path: &Path) -> Result<Table, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
    let bytes = read.map_err(|error| format!("cannot read it: {error}"))?;
    if bytes as u64 > FILE_MAX {
        return Err(format!("too long for a configuration file: more than {FILE_MAX} bytes"));
    }
    text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let what = error.message().replace('\n', ", ");
        // What the parser says of 64 bits that do not suffice is about its own types.
        if ["i128", "overflowed", "too large"].iter().any(|part| what.contains(part)) {
            let key = text.lines().nth(line - 1).and_then(|line| line.split_once('='));
            let key = key.map(|(key, _)| format!("{}: ", key.trim())).unwrap_or_default();
            return format!("line {line}: {key}too large a number: at most {}", i64::MAX);
        }
        format!("line {line}: {what}")
    })
}

/// What to write instead of a value of another type.
const WRITE: &str =
    "write a text in quotes, such as \"64KiB\" or \"30s\", a whole number, or a list";

/// A value as a flag would have it; several for a flag that can be given several times.
fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let what = match value {
        Value::String(text) => return Ok(vec![text.clone()]),
        Value::Integer(number) => return Ok(vec![number.to_string()]),
        Value::Boolean(is_on) => return Ok(vec![is_on.to_string()]),
        Value::Array(values) if values.is_empty() => return Err("the list is empty".to_owned()),
        Value::Array(values) if !values.iter().any(Value::is_array) => {
            let all = values.iter().map(|value| texts(key, value)).collect::<Result<Vec<_>, _>>();
            return all.map(|texts| texts.concat());
        }
        Value::Array(_) => "this is a list within a list".to_owned(),
        Value::Float(number) => format!("{number} is a fraction"),
        Value::Datetime(time) => format!("{time} is a date or a time"),
        Value::Table(table) => {
            let inner = table.keys().next().map_or("key", String::as_str);
            format!(
                "this is a table, as [{key}] begins one and a dot does in {key}.{inner}; there are \
                 no tables, each key stands alone"
            )
        }
    };
    Err(format!("{what}; {WRITE}"))
}

/// Says what is wrong with a setting, by what would be wrong with the flag.
fn check(command: &Command, of: Option<&str>, key: &str, texts: &[String]) -> Result<(), String> {
    let flag =
        command.get_arguments().find(|arg| arg.get_long() == Some(key) && !NOT_KEYS.contains(&key));
    let is_switch = flag.is_some_and(|flag| !flag.get_action().takes_values());
    let takes_several = flag.is_none_or(|flag| matches!(flag.get_action(), ArgAction::Append));
    let mut line = vec!["nonforker".to_owned()];
    match texts {
        _ if flag.is_none() && NOT_KEYS.contains(&key) => {
            return Err(format!("{key}: this goes on the command line"));
        }
        [text] if is_switch && ["true", "false"].contains(&text.as_str()) => {}
        _ if is_switch => return Err(format!("{key}: write true or false")),
        [_, _, ..] if !takes_several => {
            return Err(format!("{key}: it takes one value, not a list"));
        }
        _ => line.extend(texts.iter().map(|text| format!("--{key}={text}"))),
    }
    let Err(error) = command.clone().try_get_matches_from(line) else { return Ok(()) };
    // Another key may say what this one needs.
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return Ok(());
    }
    if flag.is_some() {
        return Err(format!(
            "{key}: {}",
            complaint(&error).trim_start_matches(&format!("--{key}: "))
        ));
    }
    let similar = error
        .get(ContextKind::SuggestedArg)
        .map(|similar| format!("there is {}", similar.to_string().trim_start_matches('-')));
    let hint = similar.unwrap_or_else(|| {
        let of = of.map(|of| format!("{of} ")).unwrap_or_default();
        format!("the keys are the long flags in nonforker {of}--help")
    });
    Err(format!("unknown key {key:?}; {hint}"))
}
