//! Reads texts as the table says, and collects what is wrong.

use std::path::PathBuf;

use ipam_core::ports::Cidr4;

use super::{
    parse_cidr,
    table::{self, Form, Unset},
};

/// Reads settings by name. Each method returns a value of the right form in any case; what is wrong is in `mistakes`.
pub(super) struct Reader<F> {
    pub(super) lookup: F,
    pub(super) mistakes: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// What is set, without blanks around it, or what counts instead. Absent: neither.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let Some(setting) = table::find(name) else {
            self.mistakes.push(format!("  - {name} is not in the table of settings: a mistake in ipamd itself"));
            return None;
        };
        let default = match setting.unset {
            Unset::Default(text) => Some(text.to_owned()),
            Unset::Means(_) => None,
        };
        let set = (self.lookup)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        set.or(default)
    }

    pub(super) fn wrong(&mut self, name: &str, text: &str, advice: impl std::fmt::Display) {
        self.mistakes.push(format!("  - {name}=\"{text}\": {advice}"));
    }

    /// An absolute path; absent where nothing is set and nothing counts instead.
    pub(super) fn optional_path(&mut self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(name)?);
        if !path.is_absolute() {
            self.wrong(name, &path.display().to_string(), "give an absolute path");
        }
        Some(path)
    }

    /// An absolute path of a setting that has a default.
    pub(super) fn path(&mut self, name: &str) -> PathBuf {
        self.optional_path(name).unwrap_or_default()
    }

    /// A number in the table's range; absent where nothing is set and nothing counts instead.
    pub(super) fn optional<N: TryFrom<u64>>(&mut self, name: &str) -> Option<N> {
        let text = self.text(name)?;
        let Some(Form::Number { least, most, .. }) = table::find(name).map(|setting| setting.form) else {
            self.wrong(name, &text, "is no number in the table of settings: a mistake in ipamd itself");
            return None;
        };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            self.wrong(name, &text, format_args!("give a whole number in {least}..={most}"));
        }
        number
    }

    /// A number of a setting that has a default.
    pub(super) fn number<N: TryFrom<u64> + Default>(&mut self, name: &str) -> N {
        self.optional(name).unwrap_or_default()
    }

    /// A value of a type that reads itself, of a setting that has a default.
    pub(super) fn parsed<T: std::str::FromStr<Err = String> + Default>(&mut self, name: &str) -> T {
        let text = self.text(name).unwrap_or_default();
        text.parse().unwrap_or_else(|why| {
            self.wrong(name, &text, why);
            T::default()
        })
    }

    /// True or false, in each form that the AWS CNI accepts.
    pub(super) fn switch(&mut self, name: &str) -> bool {
        let text = self.text(name).unwrap_or_default();
        match text.to_ascii_lowercase().as_str() {
            "false" | "f" | "0" => false,
            "true" | "t" | "1" => true,
            _ => {
                self.wrong(name, &text, "give true or false");
                false
            }
        }
    }

    /// One of the table's words, in lower case; absent where nothing is set and nothing counts instead, or it is wrong.
    pub(super) fn word(&mut self, name: &str) -> Option<&'static str> {
        let text = self.text(name)?;
        let words = match table::find(name).map(|setting| setting.form) {
            Some(Form::Word(words)) => words,
            _ => &[],
        };
        let word = words.iter().find(|word| word.eq_ignore_ascii_case(&text)).copied();
        if word.is_none() {
            self.wrong(name, &text, format_args!("give {}", super::reference::one_of(words)));
        }
        word
    }

    /// IPv4 networks, sorted, each once.
    pub(super) fn cidrs(&mut self, name: &str) -> Vec<Cidr4> {
        let text = self.text(name).unwrap_or_default();
        let mut cidrs = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match parse_cidr(part) {
                Some(cidr) => cidrs.push(cidr),
                None => self.wrong(name, part, "give IPv4 networks like 192.168.0.0/16, separated by commas"),
            }
        }
        cidrs.sort();
        cidrs.dedup();
        cidrs
    }
}
