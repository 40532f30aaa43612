//! A graph as indented text.

use super::{Graph, Lan};

/// One line and what hangs below it.
struct Twig {
    text: String,
    below: Vec<Twig>,
}

/// Draws the graph: under each LAN its deckies, under a decky the LANs that are reached over it.
pub(super) fn draw(graph: &Graph) -> String {
    let roots = graph.order.iter().copied();
    let mut below: Vec<Twig> = roots
        .filter(|lan| graph.lans[*lan].via.is_none())
        .map(|lan| twig_of_lan(graph, lan))
        .collect();
    let lost: Vec<Twig> = graph
        .lost()
        .map(|decky| Twig {
            text: line(&decky.name, None, &decky.about()),
            below: Vec::new(),
        })
        .collect();
    if !lost.is_empty() {
        below.push(Twig {
            text: "on no LAN".to_owned(),
            below: lost,
        });
    }
    let mut text = format!("{}\n", graph.name);
    write(&below, "", &mut text);
    text
}

fn write(twigs: &[Twig], indent: &str, out: &mut String) {
    for (index, twig) in twigs.iter().enumerate() {
        let is_last = index + 1 == twigs.len();
        let (branch, rest) = if is_last {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        out.push_str(&format!("{indent}{branch}{}\n", twig.text));
        // As deep as there are LANs, whose number is limited.
        write(&twig.below, &format!("{indent}{rest}"), out);
    }
}

fn twig_of_lan(graph: &Graph, lan: usize) -> Twig {
    let Lan {
        name,
        subnet,
        is_dmz,
        via,
        reached,
        members,
        ..
    } = &graph.lans[lan];
    let mut text = format!("{name} {subnet}");
    if *is_dmz {
        text.push_str(" (DMZ)");
    } else if !*reached && via.is_none() {
        text.push_str(" (not reached from a DMZ)");
    }
    let gateway = via.map(|via| &graph.deckies[via.decky]);
    let place = gateway.and_then(|gateway| gateway.at(lan));
    if let Some(address) = place.and_then(|place| place.address.as_deref()) {
        text.push_str(&format!(", from {address}"));
    }
    let others = members
        .iter()
        .copied()
        .filter(|decky| via.is_none_or(|via| via.decky != *decky));
    Twig {
        text,
        below: others
            .map(|decky| twig_of_decky(graph, decky, lan))
            .collect(),
    }
}

fn twig_of_decky(graph: &Graph, index: usize, lan: usize) -> Twig {
    let decky = &graph.deckies[index];
    let address = decky.at(lan).and_then(|place| place.address.as_deref());
    let lans = decky.places.iter().map(|place| &graph.lans[place.lan]);
    if let Some(first) = lans.min_by_key(|there| there.rank)
        && first.rank != graph.lans[lan].rank
    {
        // What it is stands where it is met first, and so does what is reached over it.
        return Twig {
            text: line(&decky.name, address, &[format!("see {}", first.name)]),
            below: Vec::new(),
        };
    }
    let behind: Vec<usize> = graph.behind(index, lan).collect();
    let mut about = decky.about();
    let elsewhere = decky.places.iter().filter(|place| place.lan != lan);
    about.extend(
        elsewhere
            .filter(|place| !behind.contains(&place.lan))
            .map(|place| format!("also on {}", graph.lans[place.lan].name)),
    );
    Twig {
        text: line(&decky.name, address, &about),
        below: behind
            .into_iter()
            .map(|there| twig_of_lan(graph, there))
            .collect(),
    }
}

fn line(name: &str, address: Option<&str>, about: &[String]) -> String {
    let mut text = name.to_owned();
    if let Some(address) = address {
        text.push_str(&format!(" {address}"));
    }
    if !about.is_empty() {
        text.push_str(&format!(": {}", about.join("; ")));
    }
    text
}
