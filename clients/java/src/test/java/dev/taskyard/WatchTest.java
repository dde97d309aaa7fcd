package dev.taskyard;

import static dev.taskyard.ScriptedSource.END;
import static dev.taskyard.ScriptedSource.EXPIRED;
import static dev.taskyard.ScriptedSource.LOST;
import static dev.taskyard.ScriptedSource.caughtUp;
import static dev.taskyard.ScriptedSource.control;
import static dev.taskyard.ScriptedSource.ended;
import static dev.taskyard.ScriptedSource.event;
import static dev.taskyard.ScriptedSource.events;
import static dev.taskyard.ScriptedSource.heartbeat;
import static dev.taskyard.ScriptedSource.pushed;
import static dev.taskyard.ScriptedSource.refused;
import static dev.taskyard.ScriptedSource.silence;
import static dev.taskyard.ScriptedSource.started;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.RetryInfo;
import dev.taskyard.v1.Event;
import dev.taskyard.v1.EventFilter;
import dev.taskyard.v1.EventType;
import dev.taskyard.v1.GapPolicy;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.TaskState;
import dev.taskyard.v1.WatchDraining;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchGap;
import dev.taskyard.v1.WatchSnapshot;
import dev.taskyard.v1.WatchSnapshotEnd;
import io.grpc.Status.Code;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** The rules of the watch, in the time of a script. */
class WatchTest {
  private final ScriptedSource source = new ScriptedSource();

  @Test
  void aCursorReplacesTheOneBeforeAlsoWithoutEvents() {
    source
        .then(started("a"), events("b", 1), heartbeat("c"), events("d"), LOST)
        .then(started("d"), events("e", 2), EXPIRED);
    plays(WatchOptions.live(), "Started a<1>b Heartbeat Lost Restored d<2>e CURSOR_EXPIRED");
    asked("live", "after d");
    took(50, 100);
  }

  @Test
  void withoutACursorItBeginsAsAtFirst() {
    source.then(LOST).then(LOST).then(started("a"), EXPIRED);
    // It begins anew: what happened in between is not known.
    plays(WatchOptions.oldest(), "Lost Started CURSOR_EXPIRED");
    asked("oldest", "oldest", "oldest");
    took(150, 300);
  }

  @Test
  void aBrokenSnapshotIsToldAnew() {
    Source.Got part = control("", WatchSnapshot.getDefaultInstance());
    source
        .then(started(""), part, LOST)
        .then(
            started(""),
            part,
            control("a", WatchSnapshotEnd.getDefaultInstance()),
            events("b", 7),
            LOST)
        .then(started("b"), EXPIRED);
    plays(
        WatchOptions.snapshot(),
        "SnapshotBegun Snapshot Lost SnapshotBegun Snapshot SnapshotEnded a<7>b Lost Restored"
            + " CURSOR_EXPIRED");
    asked("snapshot", "snapshot", "after b");
  }

  @Test
  void silenceOfTwoHeartbeatsAndFiveSecondsIsAnOutage() {
    source
        .then(started("a"), silence(8), heartbeat("b"), silence(3600))
        .then(started("b"), EXPIRED);
    plays(
        WatchOptions.live().withHeartbeat(Duration.ofSeconds(2)),
        "Started Heartbeat Lost Restored CURSOR_EXPIRED");
    asked("live", "after b");
    took(17_000, 17_100);
    assertEquals(1, source.connections);
  }

  @Test
  void aServerThatDoesNotAnswerIsAnOutage() {
    source.thenNoAnswer().then(started("a"), EXPIRED);
    plays(WatchOptions.live(), "Lost Started CURSOR_EXPIRED");
    took(5000, 5100);
    assertEquals(1, source.connections);
  }

  @Test
  void aServerThatAnswersMayBeSilentForLonger() {
    source.then(silence(34), started("a"), EXPIRED);
    plays(WatchOptions.live(), "Started CURSOR_EXPIRED");
  }

  @Test
  void anEndWithoutAStatusIsAnOutage() {
    source.then(started("a"), END).then(EXPIRED);
    plays(WatchOptions.live(), "Started Lost CURSOR_EXPIRED");
    asked("live", "after a");
    took(50, 100);
  }

  @Test
  void maxOutageBoundsAnOutage() {
    plays(WatchOptions.live().withMaxOutage(Duration.ofSeconds(10)), "Lost UNAVAILABLE");
    took(5000, 10_000);
  }

  @Test
  void noTryIsWaitedForBeyondTheMaxOutage() {
    source.then(LOST).thenNoAnswer();
    plays(WatchOptions.live().withMaxOutage(Duration.ofSeconds(2)), "Lost UNAVAILABLE");
    took(2000, 2000);
  }

  @Test
  void alsoTheLastTryIsWaitedForALittle() {
    source.then(ended(pushed("990"))).thenNoAnswer();
    plays(WatchOptions.live().withMaxOutage(Duration.ofSeconds(1)), "Lost UNAVAILABLE");
    took(1090, 1090);
  }

  @Test
  void withoutMaxOutageTheFirstOutageEndsIt() {
    source.then(started("a"), LOST);
    plays(WatchOptions.live().withMaxOutage(Duration.ZERO), "Started UNAVAILABLE");
    asked("live");
  }

  @Test
  void streamsThatAreDroppedAtOnceAreOneOutage() {
    for (int i = 0; i < 100; i++) {
      source.then(started("a"), LOST);
    }
    String seen = play(WatchOptions.live().withMaxOutage(Duration.ofSeconds(10)));
    assertTrue(seen.startsWith("Started Lost Restored Lost Restored Lost"), seen);
    assertTrue(seen.endsWith("UNAVAILABLE"), seen);
    took(5000, 10_000);
  }

  @Test
  void aStreamThatHasStoodForASecondEndsTheOutage() {
    for (int i = 0; i < 100; i++) {
      source.then(started("a"), silence(1), LOST);
    }
    source.then(EXPIRED);
    String seen = play(WatchOptions.live().withMaxOutage(Duration.ofMillis(100)));
    assertTrue(seen.endsWith("Lost CURSOR_EXPIRED"), seen);
    // Each is the first failure of its outage.
    took(105_000, 110_000);
  }

  @Test
  void tooManyWatchersEndsAWatchThatBegins() {
    source.then(refused(Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"));
    plays(WatchOptions.live(), "TOO_MANY_WATCHERS");
  }

  @Test
  void tooManyWatchersIsAnOutageOnceAStreamHasStood() {
    source
        .then(started("a"), LOST)
        .then(refused(Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"))
        .then(started("a"), EXPIRED);
    plays(WatchOptions.live(), "Started Lost Restored CURSOR_EXPIRED");
    asked("live", "after a", "after a");
    took(150, 300);
  }

  @Test
  void lifetimeAndStalledAreNoOutage() {
    RetryInfo rest = retryAfter(3);
    source
        .then(started("a"), refused(Code.UNAVAILABLE, "WATCH_LIFETIME"))
        .then(started("a"), refused(Code.RESOURCE_EXHAUSTED, "WATCH_STALLED", rest))
        .then(started("a"), events("b", 3), EXPIRED);
    plays(
        WatchOptions.live().withMaxOutage(Duration.ZERO),
        "Started Started Started a<3>b CURSOR_EXPIRED");
    asked("live", "after a", "after a");
    took(3010, 3010);
  }

  @Test
  void aStreamThatStoodAndReachedItsLifetimeEndsTheOutage() {
    source
        .then(LOST)
        .then(started("a"), silence(1), refused(Code.UNAVAILABLE, "WATCH_LIFETIME"))
        .thenNoAnswer()
        .then(started("a"), EXPIRED);
    plays(
        WatchOptions.oldest().withMaxOutage(Duration.ofSeconds(2)),
        "Lost Started Lost Restored CURSOR_EXPIRED");
    // The try that was not answered had all of its grace.
    took(6100, 6300);
  }

  @Test
  void theRestAfterALifetimeIsNotTimeThatAStreamStood() {
    source
        .then(LOST)
        .then(started("a"), refused(Code.UNAVAILABLE, "WATCH_LIFETIME", retryAfter(3)))
        .then(LOST);
    plays(WatchOptions.oldest().withMaxOutage(Duration.ofSeconds(2)), "Lost Started UNAVAILABLE");
    took(3050, 3100);
  }

  @Test
  void thePushbackOfTheServerIsHonoured() {
    source
        .then(started("a"), refused(Code.UNAVAILABLE, "DRAINING", retryAfter(7)))
        .then(ended(pushed("-1")));
    plays(WatchOptions.live(), "Started Lost UNAVAILABLE");
    took(7000, 7000);
  }

  @Test
  void itEndsWhenItHasCaughtUp() {
    source
        .then(started("x"), events("y", 1, 2), caughtUp("y"), LOST)
        // A new stream must catch up anew.
        .then(started("y"), END)
        .then(started("y"), caughtUp("y"), END);
    plays(
        WatchOptions.after("x").withUntilCaughtUp(true),
        "Started x<1,2>y CaughtUp Lost Restored Lost Restored CaughtUp");
    asked("after x", "after y", "after y");
  }

  @Test
  void gapAndDrainingAreTold() {
    source.then(
        started("a"),
        control("b", WatchGap.getDefaultInstance()),
        control("b", WatchDraining.getDefaultInstance()),
        EXPIRED);
    plays(WatchOptions.live().withOverGaps(true), "Started Gap Draining CURSOR_EXPIRED");
  }

  @Test
  void aTaskIsFollowedOverAnOutageEachEventOnce() {
    source
        // It may be silent for long, as it waits for room.
        .then(silence(3600), LOST)
        .then(SUBMITTED, events("b", 4, 5), LOST)
        // An end before that of the task is an outage.
        .then(started("b"), events("b", 4, 5), heartbeat("c"), END)
        // This one does not end.
        .then(started("c"), event("d", SUCCEEDED), silence(3600));
    assertEquals(
        "Lost Restored Submitted a<4,5>b Lost Restored Heartbeat Lost Restored c<9>d",
        play(Watch.follow(source, ONCE)));
    // Never by its request_id once it is submitted: the work might be done twice.
    asked("once", "once", "after b", "after c");
    assertEquals(
        WatchEventsRequest.newBuilder()
            .setAfterCursor("b")
            .setFilter(EventFilter.newBuilder().addTaskIds("t1"))
            .setHeartbeatInterval(com.google.protobuf.Duration.newBuilder().setSeconds(15))
            .setGapPolicy(GapPolicy.GAP_POLICY_FAIL)
            .build(),
        source.watched.get(0));
    took(3_600_000, 3_601_000);
  }

  @Test
  void aTaskThatIsWatchedOnHasTheGraceAndTheSilenceOfAWatch() {
    source
        .then(SUBMITTED, LOST)
        .thenNoAnswer()
        .then(started("a"), silence(3600))
        .then(event("b", SUCCEEDED));
    assertEquals("Submitted Lost Restored Lost Restored a<9>b", play(Watch.follow(source, ONCE)));
    asked("once", "after a", "after a", "after a");
    took(40_000, 40_500);
    assertEquals(2, source.connections);
  }

  @Test
  void aRestThatIsNoOutageIsNotToldOfATask() {
    source
        .then(SUBMITTED, refused(Code.UNAVAILABLE, "WATCH_LIFETIME"))
        .then(started("a"), event("b", SUCCEEDED));
    assertEquals("Submitted a<9>b", play(Watch.follow(source, ONCE)));
  }

  @Test
  void aStreamThatBreaksAfterTheEndOfItsTaskIsNotMissed() {
    source.then(SUBMITTED, event("b", SUCCEEDED), LOST);
    assertEquals("Submitted a<9>b", play(Watch.follow(source, ONCE)));
    asked("once");
  }

  @Test
  void aTaskThatWasRedrivenIsFollowedPastItsEarlierEnd() {
    Event failed = Event.newBuilder().setSeq(5).setType(EventType.EVENT_TYPE_FAILED).build();
    source.then(SUBMITTED, event("b", failed), events("c", 6, 7), event("d", SUCCEEDED), END);
    assertEquals("Submitted a<5>b b<6,7>c c<9>d", play(Watch.follow(source, ONCE)));
  }

  @Test
  void aTaskThatHadEndedIsToldWithoutEvents() {
    source.then(HAD_ENDED, END);
    assertEquals("Submitted", play(Watch.follow(source, ONCE)));
  }

  @Test
  void aTaskThatHadEndedIsWatchedNoFurtherThanItsEventsGo() {
    source.then(HAD_ENDED, LOST).then(started("a"), caughtUp("b"), END);
    assertEquals("Submitted Lost Restored", play(Watch.follow(source, ONCE)));
    asked("once", "after a");
    assertTrue(source.watched.get(0).getStopWhenCaughtUp());
  }

  @Test
  void aWaitThatIsOverLosesNothing() {
    source.then(started("a"), silence(3), events("b", 1), silence(13), events("c", 2));
    Watch watch = new Watch(source, WatchOptions.live().withHeartbeat(Duration.ofSeconds(1)));
    List<String> seen = new ArrayList<>();
    while (seen.size() < 3) {
      watch.poll(Duration.ofSeconds(1)).ifPresent(one -> seen.add(word(one)));
    }
    // The silence was counted over all of the waiting.
    assertEquals(List.of("Started", "a<1>b", "Lost"), seen);
    assertEquals(Optional.of("b"), watch.cursor());
    asked("live");
  }

  @Test
  void theCursorIsThatOfWhatWasHandedOut() {
    source.then(started("a"), events("b", 1), events("c", 2), EXPIRED);
    Watch watch = new Watch(source, WatchOptions.live());
    assertEquals(Optional.empty(), watch.cursor());
    assertTrue(watch.hasNext());
    assertEquals(Optional.empty(), watch.cursor());
    watch.next();
    assertEquals(Optional.of("a"), watch.cursor());
    watch.next();
    assertTrue(watch.hasNext());
    assertEquals(Optional.of("b"), watch.cursor());
  }

  @Test
  void afterItsEndThereIsNothingMore() {
    source.then(EXPIRED);
    Watch watch = new Watch(source, WatchOptions.live());
    assertThrows(TaskyardException.class, watch::next);
    assertFalse(watch.hasNext());
    assertThrows(NoSuchElementException.class, watch::next);
    assertEquals(Optional.empty(), watch.poll(Duration.ofDays(100_000)));
  }

  private static final SubmitRequest ONCE = SubmitRequest.newBuilder().setRequestId("once").build();
  private static final Source.Got SUBMITTED =
      control("a", SubmitResponse.newBuilder().setTaskId("t1").build());
  private static final Source.Got HAD_ENDED =
      control(
          "a",
          SubmitResponse.newBuilder()
              .setTaskId("t1")
              .setState(TaskState.TASK_STATE_FAILED)
              .build());
  private static final Event SUCCEEDED =
      Event.newBuilder().setSeq(9).setType(EventType.EVENT_TYPE_SUCCEEDED).build();

  private static RetryInfo retryAfter(int seconds) {
    var delay = com.google.protobuf.Duration.newBuilder().setSeconds(seconds);
    return RetryInfo.newBuilder().setRetryDelay(delay).build();
  }

  private void plays(WatchOptions options, String seen) {
    assertEquals(seen, play(options));
  }

  private void asked(String... asked) {
    assertEquals(List.of(asked), source.asked);
  }

  /** In the time of the script. */
  private void took(long least, long most) {
    long took = source.passedMillis();
    assertTrue(took >= least && took <= most, took + " ms");
  }

  private String play(WatchOptions options) {
    return play(new Watch(source, options));
  }

  /** Reads it to its end; the last word is its error, if it has one. */
  private static String play(Watch watch) {
    List<String> words = new ArrayList<>();
    try {
      watch.forEachRemaining(seen -> words.add(word(seen)));
    } catch (TaskyardException e) {
      words.add(e.reason().isEmpty() ? e.code().toString() : e.reason());
    }
    return String.join(" ", words);
  }

  private static String word(Seen seen) {
    if (seen instanceof Seen.Events events) {
      String seqs =
          events.events().stream()
              .map(event -> Long.toString(event.getSeq()))
              .collect(Collectors.joining(","));
      return events.before() + "<" + seqs + ">" + events.after();
    }
    return seen.getClass().getSimpleName();
  }
}
