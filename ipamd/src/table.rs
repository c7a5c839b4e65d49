//! What people are shown: tables that fit their terminal, colours where they are seen, and nothing that a terminal would obey.

use std::io::{IsTerminal, stdout};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Least width to which a column is cut, in the terminal's columns: an IPv4 address stays whole, and of an id enough to know it by.
const NARROWEST: usize = 15;
/// Longest name in a text that is no table: what Kubernetes allows for namespace and name.
const LONGEST_NAME: usize = 317;

/// Columns of the terminal that is written to. Absent: it is none, and nothing is cut.
pub(crate) fn columns() -> Option<usize> {
    terminal_size::terminal_size_of(stdout()).map(|(width, _)| width.0.into())
}

/// Whether colours are seen: on a terminal, unless NO_COLOR says otherwise.
pub(crate) fn colours() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// A colour that tells what the word says too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Odd,
    Bad,
}

/// A text in a colour, if colours are seen.
pub(crate) fn paint(text: &str, colour: Colour, is_seen: bool) -> String {
    let code = match colour {
        Colour::Good => 32,
        Colour::Odd => 33,
        Colour::Bad => 31,
    };
    if is_seen { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Prints JSON or a text for people.
#[allow(clippy::print_stdout, reason = "what commands are for")]
pub(crate) fn show(text: &str, is_json: bool) {
    print!("{}", if is_json { printable_json(text) } else { text.to_owned() });
}

/// Lays rows out under a heading, cutting the widest columns where there are not `columns` enough.
pub(crate) fn lay_out<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    columns: Option<usize>,
) -> String {
    let rows: Vec<[String; N]> =
        std::iter::once(heading.map(str::to_owned)).chain(rows).map(|row| row.map(|cell| printable(&cell))).collect();
    let mut widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0))
        .collect();
    // A column without anything stands at the end only, and takes no room.
    let used = N - widths.iter().rev().take_while(|width| **width == 0).count();
    fit(&mut widths, columns.map(|columns| columns.saturating_sub(2 * used.saturating_sub(1))));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| padded(cut(cell, *width), *width));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Narrows the widest again and again until all of them have room, or nothing can be narrowed.
fn fit(widths: &mut [usize], room: Option<usize>) {
    let Some(room) = room else { return };
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// A text with blanks behind it up to `width` columns of the terminal: wide characters, as those of Chinese, take two, accents none.
fn padded(mut text: String, width: usize) -> String {
    let blanks = width.saturating_sub(text.width());
    text.extend(std::iter::repeat_n(' ', blanks));
    text
}

/// A text of at most `width` columns of the terminal, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    // The selector that asks for an emoji's coloured form makes a narrow character wide.
    let columns = |c: char| c.width().unwrap_or(0) + usize::from(c == '\u{fe0f}');
    if text.width() <= width { text.to_owned() } else { shortened(text, width, columns) }
}

/// A name as it stands in a text: printable, and not longer than names can be.
pub(crate) fn name(text: &str) -> String {
    let text = printable(text);
    if text.chars().count() <= LONGEST_NAME { text } else { shortened(&text, LONGEST_NAME, |_| 1) }
}

/// The beginning of a text and an ellipsis, `most` together.
fn shortened(text: &str, most: usize, size: impl Fn(char) -> usize) -> String {
    let mut used = 1;
    let fits = |c: &char| {
        used += size(*c);
        used <= most
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// JSON in which nothing is left that a terminal would obey: outside of texts there is no such character.
fn printable_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c != '\n' && is_obeyed(c) {
            true => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => safe.push(c),
        }
    }
    safe
}

fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text in which control characters, and those that turn the direction of writing, are written out.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_obeyed(c) {
            true => safe.extend(c.escape_unicode()),
            false => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["1".to_owned(), "b".to_owned()], ["222".to_owned(), String::new()]];
        assert_eq!(lay_out(["A", "BB"], rows, None), "A    BB\n1    b\n222\n");
    }

    #[test]
    fn a_cell_cannot_command_the_terminal() {
        let text = lay_out(["POD"], [["web/\u{1b}[2J\u{202e}x\n".to_owned()]], None);
        assert_eq!(text, "POD\nweb/\\u{1b}[2J\\u{202e}x\\u{a}\n");
    }

    #[test]
    fn a_table_has_the_width_of_the_terminal_and_says_where_something_is_missing() {
        let row = || ["web/".to_owned() + &"x".repeat(40), "10.0.0.5".to_owned(), "eni-1".to_owned(), String::new()];
        let table = |columns| lay_out(["POD", "ADDRESS", "ENI", ""], [row()], columns);
        assert!(!table(None).contains('…') && !table(Some(61)).contains('…'), "{}", table(Some(61)));
        let narrow = table(Some(40));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert!(narrow.contains("xxx…  10.0.0.5  eni-1"), "{narrow}");
        // Nobody can read of less than that; then the terminal wraps.
        assert!(table(Some(5)).contains("web/xxxxxxxxxx…  10.0.0.5  eni-1"), "{}", table(Some(5)));
    }

    #[test]
    fn wide_characters_take_two_columns_and_accents_none() {
        let rows = [["网络/商店", "1"], ["cafe\u{301}", "2"], ["🚀🚀", "3"], ["abc", "4"]];
        let table = |columns| lay_out(["POD", "N"], rows.map(|row| row.map(str::to_owned)), columns);
        // As a terminal shows it, each line's second column begins in the same place.
        let starts: Vec<_> = table(None).lines().map(|line| line.rsplit_once("  ").unwrap().0.width()).collect();
        assert_eq!(table(None), "POD        N\n网络/商店  1\ncafe\u{301}       2\n🚀🚀       3\nabc        4\n");
        assert_eq!(starts, [9; 5]);
        // A wide character is not cut in half, and what was cut still has its ellipsis and its place.
        let long = ["网络网络网络网络网络".to_owned(), "1".to_owned()];
        let narrow = lay_out(["POD", "N"], [long], Some(19));
        assert_eq!(narrow, "POD               N\n网络网络网络网…   1\n");
        for width in 1..12 {
            for text in ["网络网络网络", "e\u{301}e\u{301}e\u{301}e\u{301}", "❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}", "👍🏽👍🏽👍🏽"]
            {
                assert!(cut(text, width).width() <= width, "{text} in {width}: {}", cut(text, width));
            }
        }
    }

    #[test]
    fn a_name_is_bounded_whatever_its_characters_are() {
        let accents = name(&"\u{301}".repeat(100_000));
        assert_eq!(accents.chars().count(), LONGEST_NAME);
        assert_eq!(name("web/shop"), "web/shop");
    }

    #[test]
    fn json_commands_no_terminal_and_means_the_same() {
        let json = serde_json::json!({ "pod": "a\u{9b}2J\u{202e}b\u{1b}" });
        let safe = printable_json(&format!("{json}\n"));
        assert_eq!(safe, "{\"pod\":\"a\\u009b2J\\u202eb\\u001b\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), json);
    }
}
