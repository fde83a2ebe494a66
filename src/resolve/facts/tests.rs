//! Age order.

use super::*;

#[test]
fn r1_older_is_earlier_then_namespace_then_name_then_cluster() {
    let in_order = [
        (Some("2024-01-01T00:00:00Z"), "z", "z", "z"),
        (Some("2024-01-01T00:00:01Z"), "a", "b", "c"),
        (Some("2024-01-01T00:00:01Z"), "a", "b", "d"),
        (Some("2024-01-01T00:00:01Z"), "a", "c", "a"),
        (Some("2024-01-01T00:00:01Z"), "a-b", "a", "a"),
        (Some("2024-01-01T00:00:01Z"), "ab", "a", "a"),
        // As yet unstored: younger than everything that has a timestamp.
        (None, "a", "B", "a"),
        (None, "a", "a", "a"),
    ];
    let ages: Vec<Age> = in_order
        .iter()
        .map(|(created, namespace, name, cluster)| {
            let created = created.map(|text| text.parse().expect("a timestamp"));
            Age::new(created, &ObjectRef::new(Kind::RouteTable, *cluster, *namespace, *name))
        })
        .collect();
    let mut sorted: Vec<Age> = ages.iter().rev().cloned().collect();
    sorted.sort();
    assert_eq!(sorted, ages);
}
