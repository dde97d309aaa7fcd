package dev.taskyard;

import dev.taskyard.v1.Event;
import dev.taskyard.v1.EventFilter;
import dev.taskyard.v1.EventType;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.WatchEventsResponse;
import dev.taskyard.v1.WatchEventsResponse.ControlCase;
import java.util.List;

/**
 * One task, followed from its submission to its end. Until it is told that it is submitted, a
 * stream that broke is opened by the same request, which finds the same task and tells it from its
 * beginning. After that its events are watched: the server forgets the request_id with the task,
 * and would do the work once more.
 */
final class Followed {
  /** Has a request_id. */
  private final SubmitRequest request;

  /** It was told that it is submitted. */
  private boolean isSubmitted;

  /** It had ended by the time of its submission, which was a repeated one. */
  private boolean hadEnded;

  /** The newest of its events that was told is its end. */
  private boolean endIsTold;

  /** The number of the last event that was told. */
  private long last;

  Followed(SubmitRequest request) {
    this.request = request;
  }

  SubmitRequest request() {
    return request;
  }

  /** Whether it was told that it is submitted. */
  boolean isSubmitted() {
    return isSubmitted;
  }

  /** How to watch it, if this message tells that it is submitted; otherwise as before. */
  WatchOptions watched(WatchEventsResponse message, WatchOptions before) {
    if (message.getControlCase() != ControlCase.SUBMITTED) {
      return before;
    }
    EventFilter only =
        EventFilter.newBuilder().addTaskIds(message.getSubmitted().getTaskId()).build();
    // What had ended may have no more events: then there is nothing to wait for.
    return before.withFilter(only).withUntilCaughtUp(hadEnded);
  }

  /** Whether its end was told, after which there is nothing more. */
  boolean endIsTold() {
    return endIsTold;
  }

  /** Whether it has ended, so that its stream may: of its events there may be none any more. */
  boolean mayEnd() {
    return endIsTold || hadEnded;
  }

  /** The message without what was told by an earlier stream. */
  WatchEventsResponse passOverTheKnown(WatchEventsResponse message) {
    WatchEventsResponse.Builder rest = message.toBuilder();
    if (message.getControlCase() == ControlCase.SUBMITTED) {
      hadEnded = Client.isTerminal(message.getSubmitted().getState());
      if (isSubmitted) {
        rest.clearControl();
      }
      isSubmitted = true;
    }
    List<Event> news =
        message.getEventsList().stream()
            .filter(event -> Long.compareUnsigned(event.getSeq(), last) > 0)
            .toList();
    if (!news.isEmpty()) {
      Event newest = news.get(news.size() - 1);
      last = newest.getSeq();
      endIsTold = isEnd(newest.getType());
    }
    return rest.clearEvents().addAllEvents(news).build();
  }

  private static boolean isEnd(EventType type) {
    return switch (type) {
      case EVENT_TYPE_SUCCEEDED, EVENT_TYPE_FAILED, EVENT_TYPE_CANCELLED -> true;
      default -> false;
    };
  }
}
