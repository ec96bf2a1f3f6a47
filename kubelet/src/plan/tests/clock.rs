//! A clock that is set back.

use super::simulator::{Disturbance, Run, Simulator};

/// An image that is always pulled is pulled once for each start, though the clock is behind the end of the run before.
#[test]
fn an_image_is_not_pulled_again_and_again_until_the_clock_is_where_it_was() {
    let spec = r#"{"restartPolicy":"Always","containers":[
        {"name":"a","image":"i","restartPolicy":"Never","restartPolicyRules":[
            {"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[1]}}]},
        {"name":"b","image":"i","imagePullPolicy":"Always"}]}"#;
    let stopping = Run {
        stops_in: 2,
        ..Run::default()
    };
    let mut node = Simulator::new(spec)
        .runs("a", &[Run::ends(2, 1), Run::default()])
        .runs("b", &[stopping])
        .disturb(4, Disturbance::ClockJump(-1000));
    node.run(100);
    assert_eq!(node.order_of(&["start"]).len(), 4);
    assert_eq!(node.order_of(&["pull"]), ["pull i"; 2]);
}

/// A pause is over when nobody knows how much of it is: its end by the clock may be hours away.
#[test]
fn no_pause_waits_until_the_clock_is_where_it_was() {
    let always = r#"{"containers":[{"name":"c","image":"i:1"}]}"#;
    let crashed = Simulator::new(always).runs("c", &[Run::ends(5, 1)]);
    let mut node = crashed.disturb(12, Disturbance::ClockJump(-1000));
    node.run(30);
    // At once, and ten seconds after the second end: but then it is a thousand seconds ago.
    assert_eq!(node.seconds_of("start c")[..3], [0, 5, 0], "{:#?}", node.log);
    for (step, word) in [
        ("SetUpVolumes", "start c"),
        ("RunSandbox", "sandbox 0"),
        ("PullImage", "pull i:1"),
        ("StartContainer", "start c"),
    ] {
        let mut node = Simulator::new(always)
            .fail(step, 1)
            .disturb(3, Disturbance::ClockJump(-1000));
        node.run(30);
        assert_eq!(node.seconds_of(word), [0], "{step}: {:#?}", node.log);
    }
}
