//! Tables of text.

use comfy_table::{CellAlignment, LineStyle, Row, Table, TableStyle};

/// A table with a rule below its headings and `gap` spaces between columns; those for which
/// `number` is true are aligned at their right. No line ends in spaces.
pub(crate) fn table(
    headings: impl Into<Row>,
    rows: impl IntoIterator<Item = impl Into<Row>>,
    gap: u16,
    number: impl Fn(usize) -> bool,
) -> String {
    let rule = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(rule).set_header(headings).add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, gap));
        if number(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<String>>().join("\n")
}
