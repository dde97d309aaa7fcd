package dev.taskyard;

import dev.taskyard.v1.Event;
import dev.taskyard.v1.EventType;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.WatchEventsResponse;
import dev.taskyard.v1.WatchEventsResponse.ControlCase;
import java.util.List;

/**
 * One task, followed from its submission to its end. A stream that broke is opened by the same
 * request, which finds the same task and tells it again from its beginning.
 */
final class Followed {
  /** Has a request_id. */
  private final SubmitRequest request;

  /** It was told that it is submitted. */
  private boolean isSubmitted;

  /** By what was told, it has ended. */
  private boolean hasEnded;

  /** The number of the last event that was told. */
  private long last;

  Followed(SubmitRequest request) {
    this.request = request;
  }

  SubmitRequest request() {
    return request;
  }

  /** Whether it has ended, so that its stream may. */
  boolean hasEnded() {
    return hasEnded;
  }

  /** The message without what was told by an earlier stream. */
  WatchEventsResponse passOverTheKnown(WatchEventsResponse message) {
    WatchEventsResponse.Builder rest = message.toBuilder();
    if (message.getControlCase() == ControlCase.SUBMITTED) {
      // Of a task that ended long ago there may be no events any more.
      hasEnded = Client.isTerminal(message.getSubmitted().getState());
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
      hasEnded = isEnd(newest.getType());
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
