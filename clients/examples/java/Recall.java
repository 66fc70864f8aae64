import com.recall.v1.GetServerInfoRequest;
import com.recall.v1.GetServerInfoResponse;
import com.recall.v1.IdType;
import com.recall.v1.RecallRequest;
import com.recall.v1.RecallResponse;
import com.recall.v1.RecallServiceGrpc;
import com.recall.v1.RecallServiceGrpc.RecallServiceBlockingStub;
import com.recall.v1.User;
import com.recall.v1.UserCandidates;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Candidates for a batch of users, 10 for each, within 500 ms: java Recall localhost:50051 500 10 50,181,174 "". */
public final class Recall {
  private static final Metadata.Key<String> REASON =
      Metadata.Key.of("error-reason", Metadata.ASCII_STRING_MARSHALLER);

  // Calls are spread over all addresses of the target. A second attempt is harmless, except after UpsertUsers, which
  // may append: it is repeated only if the server refused it before it wrote anything.
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
          "methodConfig",
              List.of(
                  retried(Map.of("service", "recall.v1.RecallService"), "UNAVAILABLE", "RESOURCE_EXHAUSTED"),
                  retried(
                      Map.of("service", "recall.v1.RecallService", "method", "UpsertUsers"), "RESOURCE_EXHAUSTED")),
          "retryThrottling", Map.of("maxTokens", 100.0, "tokenRatio", 0.1));

  // A service config holds JSON: every number is a Double.
  private static Map<String, ?> retried(Map<String, String> name, String... codes) {
    return Map.of(
        "name", List.of(name),
        "retryPolicy",
            Map.of(
                "maxAttempts", 4.0,
                "initialBackoff", "0.05s",
                "maxBackoff", "1s",
                "backoffMultiplier", 2.0,
                "retryableStatusCodes", List.of(codes)));
  }

  /** What the server serves. Ask once, not for each request. */
  static GetServerInfoResponse serverInfo(RecallServiceBlockingStub stub, long timeoutMs) {
    return stub.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS)
        .getServerInfo(GetServerInfoRequest.getDefaultInstance());
  }

  /** Whether item ids of the release are text; else they are integers. */
  static boolean hasTextIds(GetServerInfoResponse info) {
    return info.getIdType() == IdType.ID_TYPE_TEXT;
  }

  /** Up to top_k candidates for every user, in order; the time includes retries. */
  static RecallResponse recall(RecallServiceBlockingStub stub, RecallRequest request, long timeoutMs) {
    return stub.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS).recall(request);
  }

  /** The server's stable word for what went wrong, such as TOP_K_OUT_OF_RANGE; empty if no server answered. */
  static String reason(StatusRuntimeException error) {
    Metadata trailers = error.getTrailers();
    return trailers != null && trailers.containsKey(REASON) ? trailers.get(REASON) : "";
  }

  /** Lets `ask` use a stub of the target, and ends the program; a failure is a line on stderr and exit code 1. */
  static void run(String target, Consumer<RecallServiceBlockingStub> ask) throws InterruptedException {
    ManagedChannel channel =
        Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
            .defaultServiceConfig(SERVICE_CONFIG)
            .enableRetry()
            .build();
    int exitCode = 0;
    try {
      ask.accept(RecallServiceGrpc.newBlockingStub(channel));
    } catch (StatusRuntimeException error) {
      System.err.printf(
          "%s %s: %s%n", error.getStatus().getCode(), reason(error), error.getStatus().getDescription());
      exitCode = 1;
    } finally {
      channel.shutdown().awaitTermination(1, TimeUnit.SECONDS);
    }
    System.exit(exitCode);
  }

  /** The ids in a text such as 50,181. */
  static List<String> split(String ids) {
    return Arrays.stream(ids.split(",")).filter(id -> !id.isEmpty()).toList();
  }

  public static void main(String[] args) throws Exception {
    long timeoutMs = Long.parseLong(args[1]);
    run(
        args[0],
        stub -> {
          boolean text = hasTextIds(serverInfo(stub, timeoutMs));
          List<User> users = Arrays.stream(args).skip(3).map(ids -> user(split(ids), text).build()).toList();
          RecallRequest request =
              RecallRequest.newBuilder().setTopK(Integer.parseInt(args[2])).addAllUsers(users).build();
          print(recall(stub, request, timeoutMs));
        });
  }

  /** A user with this history. */
  static User.Builder user(List<String> ids, boolean text) {
    User.Builder user = User.newBuilder();
    return text ? user.addAllHistItemKeys(ids) : user.addAllHistItem(ids.stream().map(Long::valueOf).toList());
  }

  private static void print(RecallResponse answer) {
    for (int user = 0; user < answer.getResultsCount(); user++) {
      UserCandidates candidates = answer.getResults(user);
      System.out.println(("user " + user + ": " + candidates.getStatus() + " " + candidates.getDetail()).strip());
      List<?> ids = candidates.getItemKeysCount() > 0 ? candidates.getItemKeysList() : candidates.getItemIdsList();
      for (int i = 0; i < ids.size(); i++) {
        System.out.printf(
            "  %s  score %.4f  interest %d%n", ids.get(i), candidates.getScores(i), candidates.getInterest(i));
      }
    }
  }
}
