//! Tables for people: columns as wide as their widest cell, and nothing in a cell that a terminal would obey.

/// Lays rows out under a heading.
pub(crate) fn lay_out<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> =
        std::iter::once(heading.map(str::to_owned)).chain(rows).map(|row| row.map(|cell| printable(&cell))).collect();
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A text in which control characters, and those that turn the direction of writing, are written out.
pub(crate) fn printable(text: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
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
        assert_eq!(lay_out(["A", "BB"], rows), "A    BB\n1    b\n222\n");
    }

    #[test]
    fn a_cell_cannot_command_the_terminal() {
        let text = lay_out(["POD"], [["web/\u{1b}[2J\u{202e}x\n".to_owned()]]);
        assert_eq!(text, "POD\nweb/\\u{1b}[2J\\u{202e}x\\u{a}\n");
    }
}
