//! What is wrong with a command line, in one line that names the flag and the value.

use std::{error::Error, ffi::OsString};

use clap::error::{ContextKind, ContextValue};

/// The line with `--flag -5s` as `--flag=-5s`: so what is said to be wrong is the value of that flag,
/// and not a flag `-5` that nobody meant.
pub(crate) fn with_negative_values(line: Vec<OsString>) -> Vec<OsString> {
    let is_negative = |word: &str| {
        word.strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    let is_flag = |word: &str| {
        let name = word
            .strip_prefix("--")
            .or_else(|| word.strip_prefix('-').filter(|name| name.len() == 1));
        name.is_some_and(|name| name.starts_with(char::is_alphabetic) && !name.contains('='))
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(line.len());
    let mut are_flags = true;
    for word in line {
        are_flags &= word != "--";
        match joined.last_mut() {
            Some(flag)
                if are_flags
                    && word.to_str().is_some_and(is_negative)
                    && flag.to_str().is_some_and(is_flag) =>
            {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// A flag without what clap writes behind it: `--driver` of `--driver <DRIVER>`.
fn name(flag: &str) -> &str {
    flag.split(' ').next().unwrap_or(flag)
}

/// What is wrong, in one line: with the flag, and the value if that is what is wrong.
pub(crate) fn complaint(error: &clap::Error) -> String {
    if let (Some(ContextValue::String(flag)), Some(cause)) =
        (error.get(ContextKind::InvalidArg), error.source())
    {
        return format!("{}: {cause}", name(flag));
    }
    if let (
        Some(ContextValue::String(flag)),
        Some(ContextValue::String(value)),
        Some(ContextValue::Strings(known)),
    ) = (
        error.get(ContextKind::InvalidArg),
        error.get(ContextKind::InvalidValue),
        error.get(ContextKind::ValidValue),
    ) && !known.is_empty()
    {
        let similar = error.get(ContextKind::SuggestedValue);
        let similar = similar.map(|similar| format!("; did you mean {similar}?"));
        return format!(
            "{}: bad value {value:?}: there are {}{}",
            name(flag),
            known.join(", "),
            similar.unwrap_or_default()
        );
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.take_while(|line| !line.starts_with("Usage:"));
    let mut complaint = String::new();
    for line in lines.filter(|line| !line.starts_with("For more information")) {
        match (line.strip_prefix("error: "), line.strip_prefix("tip: ")) {
            (Some(what), _) => complaint.push_str(what),
            (_, Some(tip)) => complaint.push_str(&format!("; {tip}")),
            _ => complaint.push_str(&format!(" {line}")),
        }
    }
    complaint + "; see nonforker --help"
}
