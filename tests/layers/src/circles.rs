//! Groups of files that reach each other, and a few imports without which they would not.

use std::collections::{BTreeMap, BTreeSet};

use crate::Arrows;

/// The groups of two files or more in which each reaches each other, the largest first.
pub(crate) fn find(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        targets.entry(from).or_default().push(to);
    }
    // The crates are small: reaching from every file is fast enough, and shorter than Tarjan's
    // algorithm.
    let reached: BTreeMap<&str, BTreeSet<&str>> = targets
        .keys()
        .map(|&from| (from, reachable(from, &targets)))
        .collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for &from in targets.keys() {
        if !reaches(from, from) || circles.iter().any(|circle| circle.contains(from)) {
            continue;
        }
        let circle = reached[from].iter().filter(|&&to| reaches(to, from));
        circles.push(circle.map(|&name| name.to_owned()).collect());
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

fn reachable<'a>(from: &'a str, targets: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for &to in targets.get(at).into_iter().flatten() {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    seen
}

/// Imports without which `circle` would be none: those with the fewest names first, as long as they
/// lie on a circle. Not always the fewest possible.
pub(crate) fn cut(circle: &BTreeSet<String>, arrows: &Arrows) -> Vec<(String, String)> {
    let mut left: Arrows = arrows
        .iter()
        .filter(|((from, to), _)| circle.contains(from) && circle.contains(to))
        .map(|(arrow, names)| (arrow.clone(), names.clone()))
        .collect();
    let mut cut = Vec::new();
    loop {
        let circles = find(&left);
        let within = |from: &String, to: &String| {
            let holds = |circle: &&BTreeSet<String>| circle.contains(from) && circle.contains(to);
            circles.iter().find(holds).is_some()
        };
        left.retain(|(from, to), _| within(from, to));
        // Without which import do the fewest files stay in circles?
        let best = left.iter().min_by_key(|(arrow, names)| {
            let mut without = left.clone();
            without.remove(arrow);
            let files: usize = find(&without).iter().map(BTreeSet::len).sum();
            (files, names.len())
        });
        let Some((best, _)) = best else {
            return cut;
        };
        let best = best.clone();
        left.remove(&best);
        cut.push(best);
    }
}
