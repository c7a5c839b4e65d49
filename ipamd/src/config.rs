//! `ipamd config`: what the settings are, and which there are.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    arguments, complain,
    settings::{
        Mistakes, Settings, reference,
        sources::{Source, Sources},
        table::{self, Unset},
    },
    table::lay_out,
};

/// Shows each setting with who set it, and tells what is wrong or has no effect.
#[allow(clippy::print_stdout, reason = "a command for people")]
pub(crate) fn check(sources: &Sources, as_json: bool) -> ExitCode {
    let read = Settings::of(sources);
    let warnings = sources.warnings();
    if as_json {
        println!("{}", object(sources, &warnings, read.as_ref().err()));
        return if read.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(arguments::WRONG_SETTINGS) };
    }
    print!("{}", text(sources));
    for warning in &warnings {
        complain(&format!("warning: {warning}"));
    }
    match read {
        Ok(_) => ExitCode::SUCCESS,
        Err(mistakes) => arguments::wrong(&mistakes),
    }
}

/// The settings, who set each, what is wrong and what has no effect, as JSON.
pub(crate) fn as_text(sources: &Sources) -> String {
    format!("{:#}\n", object(sources, &sources.warnings(), Settings::of(sources).err().as_ref()))
}

/// Shows all settings that there are.
#[allow(clippy::print_stdout, reason = "a command for people")]
pub(crate) fn reference(as_json: bool) -> ExitCode {
    match as_json {
        true => println!("{:#}", reference::as_json()),
        false => print!("{}", reference::as_markdown()),
    }
    ExitCode::SUCCESS
}

/// Name, text and source of every setting; text is absent where nothing is set and nothing counts instead.
fn effective(sources: &Sources) -> impl Iterator<Item = (&'static str, Option<&str>, Source)> {
    table::all().map(|setting| match (sources.get(setting.name), setting.unset) {
        (Some((text, source)), _) => (setting.name, Some(text), source),
        (None, Unset::Default(text)) => (setting.name, Some(text), Source::Default),
        (None, Unset::Means(_)) => (setting.name, None, Source::Default),
    })
}

fn text(sources: &Sources) -> String {
    let rows = effective(sources).map(|(name, text, source)| {
        let source = if source == Source::Default { String::new() } else { source.as_str().to_owned() };
        [name.to_owned(), text.unwrap_or("-").to_owned(), source]
    });
    lay_out(["SETTING", "VALUE", "SET BY"], rows)
}

fn object(sources: &Sources, warnings: &[String], mistakes: Option<&Mistakes>) -> serde_json::Value {
    let settings: serde_json::Map<_, _> = effective(sources)
        .map(|(name, text, source)| (name.to_owned(), json!({ "value": text, "set_by": source.as_str() })))
        .collect();
    let mistakes: Vec<&str> = mistakes.iter().flat_map(|mistakes| &mistakes.0).map(|mistake| mistake.trim()).collect();
    json!({ "settings": settings, "warnings": warnings, "mistakes": mistakes })
}
