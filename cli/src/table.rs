//! Tables that fit the terminal.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};

use crate::safe::clipped;

/// Most characters of one cell. More is in `--output json`.
const CELL: usize = 400;
/// Columns of prose and of lists, which read well over several lines. Nothing else does.
const PROSE: [&str; 9] = [
    "reason",
    "message",
    "summary",
    "what",
    "next step",
    "found",
    "holds",
    "services",
    "addresses",
];
/// What a column of prose needs at least.
const LEAST: usize = 16;
/// What stands between columns.
const GAP: u16 = 2;

/// How the place looks where a table goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns; none when nobody looks and nothing is to be wrapped.
    pub(crate) width: Option<u16>,
    /// Whether colours are wanted.
    pub(crate) colour: bool,
}

/// Rows under a head.
pub(crate) struct Rows {
    table: Table,
    head: Vec<String>,
    width: Option<u16>,
}

/// One cell.
pub(crate) enum Field {
    /// Text.
    Text(String),
    /// A state or status, coloured by how good it is.
    State(String),
}

impl Field {
    pub(crate) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    pub(crate) fn maybe(text: Option<impl ToString>) -> Self {
        Self::Text(text.map_or_else(|| "-".to_owned(), |text| text.to_string()))
    }

    fn cell(self, look: Look) -> Cell {
        match self {
            Self::Text(text) => Cell::new(clipped(&text, CELL)),
            Self::State(text) => {
                let cell = Cell::new(clipped(&text, CELL));
                if !look.colour {
                    return cell;
                }
                match text.as_str() {
                    "ready" | "active" | "ok" => cell.fg(Color::Green),
                    "lost" | "failed" | "fail" | "revoked" | "error" | "critical" => {
                        cell.fg(Color::Red)
                    }
                    "late" | "unknown" | "deploying" | "tearing_down" | "degraded" | "warn"
                    | "warning" | "cordoned" | "draining" => cell.fg(Color::Yellow),
                    _ => cell,
                }
            }
        }
    }
}

impl Rows {
    pub(crate) fn new(look: Look, head: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match look.width {
            Some(width) => table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        if look.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if !head.is_empty() {
            table.set_header(head.iter().map(|title| Cell::new(title.to_uppercase())));
        }
        Self {
            table,
            head: head.iter().map(|title| (*title).to_owned()).collect(),
            width: look.width,
        }
    }

    pub(crate) fn push(&mut self, look: Look, fields: impl IntoIterator<Item = Field>) {
        self.table.add_row(
            fields
                .into_iter()
                .map(|field| field.cell(look))
                .collect::<Vec<_>>(),
        );
    }

    /// The table, every line ended.
    pub(crate) fn finish(mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        if let Some(width) = self.width {
            self.fit(usize::from(width));
        }
        let mut text = self.table.trim_fmt();
        text.push('\n');
        text
    }
}

impl Rows {
    /// Says which columns give way where there is no room for all: a word or an id that is broken
    /// can be neither read nor copied.
    fn fit(&mut self, width: usize) {
        let wanted: Vec<usize> = self
            .table
            .column_max_content_widths()
            .iter()
            .map(|width| usize::from(width.saturating_add(GAP)))
            .collect();
        if self.head.is_empty() || wanted.iter().sum::<usize>() <= width {
            return;
        }
        // What has a name is found by that; its id is in every other form.
        let named = self.head.first().is_some_and(|head| head == "name");
        let hidden = |head: &str| named && head == "id";
        let prose = |head: &str| PROSE.contains(&head);
        let least: usize = self
            .head
            .iter()
            .zip(&wanted)
            .filter(|(head, _)| !hidden(head))
            .map(|(head, wanted)| match prose(head) {
                true => LEAST.min(*wanted),
                false => *wanted,
            })
            .sum();
        for (head, column) in self.head.iter().zip(self.table.column_iter_mut()) {
            if hidden(head) {
                column.set_constraint(ColumnConstraint::Hidden);
            } else if head == "id" || (least <= width && !prose(head)) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
}

/// A table of `rows` under `head`, or a line that says that there are none.
pub(crate) fn table<R: IntoIterator<Item = Field>>(
    look: Look,
    head: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut out = Rows::new(look, head);
    for row in rows {
        out.push(look, row);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(look: Look) -> String {
        table(
            look,
            &["name", "state", "reason"],
            [
                [
                    Field::text("edge-07"),
                    Field::State("ready".to_owned()),
                    Field::text("-"),
                ],
                [
                    Field::text("a-host-with-quite-a-long-name"),
                    Field::State("lost".to_owned()),
                    Field::text(
                        "no heartbeat for a very long time, and longer than any line is wide",
                    ),
                ],
            ],
        )
    }

    #[test]
    fn a_table_fits_its_terminal() {
        for width in [40_u16, 60, 80, 120] {
            let text = sample(Look {
                width: Some(width),
                colour: false,
            });
            for line in text.lines() {
                assert!(
                    line.chars().count() <= usize::from(width),
                    "{width}: {line:?}"
                );
            }
        }
    }

    #[test]
    fn a_table_that_nobody_looks_at_has_one_line_a_row() {
        let text = sample(Look {
            width: None,
            colour: false,
        });
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("NAME"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn states_are_coloured_where_colour_is_wanted() {
        assert!(
            sample(Look {
                width: Some(80),
                colour: true
            })
            .contains("\x1b[38;5;10mready")
        );
    }

    #[test]
    fn what_an_attacker_typed_cannot_command_the_terminal() {
        let look = Look {
            width: Some(80),
            colour: false,
        };
        let text = table(look, &["name"], [[Field::text("\x1b]0;owned\x07\nnext")]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'));
    }

    fn narrow(head: &[&str], row: &[&str], width: u16) -> String {
        let look = Look {
            width: Some(width),
            colour: false,
        };
        table(
            look,
            head,
            [row.iter().map(Field::text).collect::<Vec<_>>()],
        )
    }

    #[test]
    fn where_there_is_little_room_prose_gives_way_and_no_word_is_broken() {
        let head = ["at", "event", "actor", "reason"];
        let row = [
            "2026-11-26 03:41:49",
            "deploy_requested",
            "operator:admin",
            "the host reports exactly what is desired",
        ];
        let text = narrow(&head, &row, 78);
        assert!(text.lines().all(|line| line.len() <= 78), "{text}");
        assert!(
            text.contains("2026-11-26 03:41:49  deploy_requested  operator:admin  "),
            "{text}"
        );
        assert!(text.lines().count() > 2, "{text}");
    }

    #[test]
    fn an_id_is_whole_or_not_there() {
        let id = "01a215f0-dab6-76f5-9da3-d457fda24693";
        let named = ["name", "status", "reason", "id"];
        let row = [
            "office",
            "active",
            "the host reports exactly what is desired",
            id,
        ];
        let text = narrow(&named, &row, 80);
        assert!(!text.contains("01a2") && !text.contains("ID"), "{text}");
        assert!(narrow(&named, &row, 120).contains(id));
        // Nothing else says which one is meant.
        let mutations = ["no", "op", "state", "reason", "id"];
        let row = ["3", "update_decky", "applied", "", id];
        assert!(narrow(&mutations, &row, 80).contains(id));
        assert!(narrow(&mutations, &row, 50).contains(id));
    }
}
